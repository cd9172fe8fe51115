//! The text of a unit (vm-and-gpu-host spec 6.3): it may do what the daemon needs, and nothing else.

use std::fmt::Write as _;

use super::Daemon;

/// What holds for every daemon, below the lines that name it.
const SANDBOX: &str = "\
UMask=0077
Restart=on-failure
RestartSec=5s
RestartPreventExitStatus=2
WatchdogSec=60s
TimeoutStopSec=45s
KillMode=mixed
StandardOutput=journal
StandardError=journal
TasksMax=512
LimitNOFILE=65536
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@mount @swap @reboot @raw-io @cpu-emulation @obsolete @debug @module
DevicePolicy=closed
";

/// The GPUs that a worker computes on, and the folders that its virtual machines need; what is absent is passed over.
/// No `MemoryDenyWriteExecute` there: CUDA compiles while it runs.
const WORKER: &str = "\
DeviceAllow=/dev/nvidiactl rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia-uvm rw
ReadWritePaths=-/var/lib/vm
";

/// What a daemon without GPUs can do without.
const NO_GPU: &str = "\
PrivateDevices=yes
MemoryDenyWriteExecute=yes
";

/// The unit of `daemon`, run as `user`, in those `groups` besides its own that the machine has.
#[must_use]
pub fn text(daemon: &Daemon, user: &str, groups: &[&str]) -> String {
    let Daemon { name, description, config_file, memory_max, start_timeout_s, is_worker, .. } = daemon;
    let after = if *is_worker { " libvirtd.service virtqemud.service" } else { "" };
    let mut unit = format!(
        "# Written by `{name} install-service`, which replaces it: put changes into a drop-in (systemctl edit {name}).\n\
         [Unit]\n\
         Description={description}\n\
         Wants=network-online.target\n\
         After=network-online.target{after}\n\
         StartLimitIntervalSec=300\n\
         StartLimitBurst=10\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart=/opt/{name}/current/{name} run --config /opt/{name}/config/{config_file}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         User={user}\n"
    );
    if !groups.is_empty() {
        let _ = writeln!(unit, "SupplementaryGroups={}", groups.join(" "));
    }
    // HOME and the working directory are the state directory: there relative paths of a configuration end, and
    // ~/.bittensor/wallets.
    let _ = write!(
        unit,
        "Environment=HOME=/var/lib/{name}\n\
         WorkingDirectory=/var/lib/{name}\n\
         StateDirectory={name}\n\
         StateDirectoryMode=0700\n\
         RuntimeDirectory={name}\n\
         TimeoutStartSec={start_timeout_s}s\n\
         MemoryMax={memory_max}\n"
    );
    unit.push_str(SANDBOX);
    if *is_worker {
        unit.push_str(WORKER);
        // The state of the VM gateway lies beside the configuration.
        let _ = writeln!(unit, "ReadWritePaths=/opt/{name}/config");
    } else {
        unit.push_str(NO_GPU);
    }
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    unit
}
