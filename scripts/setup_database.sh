#!/usr/bin/env bash
# Makes the PostgreSQL role and database of a validator.
#
#   scripts/setup_database.sh setup [--role NAME] [--database NAME]     both names are byteleap_validator by default
#
# It prints database.url for validator_config.yaml on standard output, with the password that it generated: keep it, it
# is stored nowhere else. What exists already is left as it is; then the password is not known and not printed.
#
# The server is found as psql finds it: PGHOST, PGPORT, PGUSER and PGPASSWORD name another one than this machine's. On
# this machine, run it as root (it becomes the user postgres) or as a user who may create roles. PostgreSQL 12 or newer.
#
# It says what is missing: a server that does not run yet (on RHEL it has no cluster before `postgresql-setup --initdb`),
# and a server that does not let the new role in with its password (RHEL's pg_hba.conf asks for ident on this machine).
set -euo pipefail

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit "$1"
}

role=byteleap_validator
database=byteleap_validator
case "${1:-}" in
  setup) shift ;;
  help | --help | -h) usage 0 ;;
  *) usage 2 >&2 ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --role) role=${2:?--role NAME} ;;
    --database) database=${2:?--database NAME} ;;
    *) usage 2 >&2 ;;
  esac
  shift 2
done
for name in "$role" "$database"; do
  if ! [[ $name =~ ^[a-z_][a-z0-9_]{0,62}$ ]]; then
    echo "'$name' is no good name: lower-case letters, digits and _, at most 63" >&2
    exit 2
  fi
done

command -v psql >/dev/null || {
  echo "psql is missing: install your system's PostgreSQL (Debian: postgresql, RHEL: postgresql-server)" >&2
  exit 1
}

# Reads SQL from standard input, so that no password stands in the list of processes.
sql() {
  local command=(psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --dbname=postgres)
  if [ "$(id -u)" = 0 ] && [ -z "${PGHOST:-}${PGUSER:-}" ]; then
    command=(setpriv --reuid=postgres --regid=postgres --init-groups -- "${command[@]}")
  fi
  (cd / && "${command[@]}")
}

# On this machine a server that does not answer is one that is not set up or not started.
if [ -z "${PGHOST:-}" ] && command -v pg_isready >/dev/null && ! (cd / && pg_isready --quiet); then
  echo "no PostgreSQL server answers on this machine. Start it, then run this again:" >&2
  if command -v postgresql-setup >/dev/null; then
    echo "  postgresql-setup --initdb        (once: makes the cluster)" >&2
    echo "  systemctl enable --now postgresql" >&2
  else
    echo "  systemctl enable --now postgresql   (Debian's package makes the cluster when it is installed)" >&2
  fi
  exit 1
fi

# What makes the role and the database, each only if it is missing; prints what it made, one word a line.
password=$(head -c 32 /dev/urandom | base64 | tr -d '+/=\n' | head -c 32)
made=$(
  sql <<SQL
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$role') AS makes_role \\gset
\\if :makes_role
CREATE ROLE $role LOGIN PASSWORD '$password';
\\echo role
\\endif
SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = '$database') AS makes_database \\gset
\\if :makes_database
CREATE DATABASE $database OWNER $role TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE $database FROM PUBLIC;
\\echo database
\\endif
SQL
)

case $made in
  *database*) echo "made database $database" >&2 ;;
  *) echo "database $database exists already" >&2 ;;
esac
case $made in
  role*)
    host=${PGHOST:-localhost}
    case $host in
      /*) place="/$database?host=$host&port=${PGPORT:-5432}" ;;
      *) place="$host:${PGPORT:-5432}/$database" ;;
    esac
    case $host in
      /*) echo "url: postgresql://$place&user=$role&password=$password" ;;
      *) echo "url: postgresql://$role:$password@$place" ;;
    esac
    ;;
  *) echo "role $role exists already and keeps its password" >&2 ;;
esac

# Whether the new role gets in as the validator will come: over TCP, with the password.
if [[ $made == role* ]] && [[ ${PGHOST:-localhost} != /* ]]; then
  if ! (cd / && PGPASSWORD=$password psql --no-psqlrc --quiet --no-password --host="${PGHOST:-localhost}" \
    --port="${PGPORT:-5432}" --username="$role" --dbname="$database" --command='SELECT 1' >/dev/null); then
    hba=$(sql <<<'SHOW hba_file' || echo pg_hba.conf)
    cat >&2 <<HINT
The role is made, but the server does not let it in with its password. Add this line to $hba,
before the other lines that begin with host, then reload the server (systemctl reload postgresql):
  host  $database  $role  samehost  $( [ "$(sql <<<'SHOW password_encryption')" = md5 ] && echo md5 || echo scram-sha-256)
HINT
  fi
fi
