// PM2: `pm2 start ecosystem.config.js` runs the miner and the worker, `--only byteleap-miner` just one of them. The validator
// joins them once config/validator_config.yaml names a netuid, and can always be had with `--only byteleap-validator`.

const fs = require("fs");
const path = require("path");

const root = __dirname;

// The program beside this file (a release), else a build of this checkout.
function program(name) {
  const places = [name, `bin/${name}`, `target/release/${name}`, `target/debug/${name}`];
  const found = places.map((place) => path.join(root, place)).find((file) => fs.existsSync(file) && fs.statSync(file).isFile());
  return found || path.join(root, "target/release", name);
}

function daemon(role, maxMemory) {
  const name = `byteleap-${role}`;
  return {
    name,
    script: program(name),
    args: ["--config", `config/${role}_config.yaml`],
    interpreter: "none",
    cwd: root,
    autorestart: true,
    restart_delay: 5000,
    max_restarts: 10,
    min_uptime: 10000,
    max_memory_restart: maxMemory,
    // SIGINT drains; what has not ended by then is killed.
    kill_timeout: 30000,
    out_file: `logs/pm2-${role}-out.log`,
    error_file: `logs/pm2-${role}-error.log`,
    merge_logs: true,
    time: true,
  };
}

function validatorIsConfigured() {
  const file = path.join(root, "config/validator_config.yaml");
  return fs.existsSync(file) && /^netuid:\s*\d+/m.test(fs.readFileSync(file, "utf8"));
}

const validatorIsAskedFor = process.argv.some((argument) => argument.includes("byteleap-validator"));

module.exports = {
  apps: [
    daemon("miner", "2G"),
    daemon("worker", "4G"),
    ...(validatorIsConfigured() || validatorIsAskedFor ? [daemon("validator", "8G")] : []),
  ],
};
