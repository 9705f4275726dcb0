#!/usr/bin/env bash
# The engine test: the gateway in front of a real llama.cpp engine, used by OpenAI's own Python client.
#
#   tests/engine/run.sh             the gateway of this checkout
#   TOLLGATE=path tests/engine/run.sh
#                                   another gateway
#   tests/engine/run.sh --direct    no gateway: the checks against the engine itself, to check the checks
#
# What it does, in this order:
#   1. a Python environment outside the repository with exactly what requirements.txt pins (about 300 MB; made once and
#      kept; made anew when requirements.txt or the Python changes);
#   2. a tiny model with random weights (make_model.py), and two engines with it: chat and embeddings (serve_engine.py);
#   3. the gateway in front of both, with a configuration of its own;
#   4. the checks (checks.py): answers, streams, JSON, tools, errors, names and keys, twenty callers of a target that is
#      asked by one at a time, clients that leave, an engine that is killed, and that every token the engine counted is in
#      the gateway's books: its metrics, `tollgate usage`, and the ledger's file.
# Nothing is downloaded but the Python packages; ports are picked by the system; everything started is ended, and all
# files but the environment are removed, however this script ends. After the installation it takes about 30 seconds.
#
# Needs: bash, python3 (3.11 or later, with venv and pip), and the gateway's binary or cargo to build it.
#
# Settings, from the environment:
#   TOLLGATE              the gateway's binary. Default: target/release/tollgate, built if it is not there
#   TOLLGATE_ENGINE_VENV  where the Python environment is kept. Default: tollgate-engine-venv in $TMPDIR or /tmp
#   PYTHON                the Python to make it with. Default: python3
#
# The last line is `N passed, M failed`. Exit status: 0 if all passed, else 1. If something failed, the ends of the
# engine's and the gateway's logs come before it; a failure to start anything counts as one failed check.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
temporary=${TMPDIR:-/tmp}
venv=${TOLLGATE_ENGINE_VENV:-${temporary%/}/tollgate-engine-venv}
python=${PYTHON:-python3}
key=sk-ann-4f1c09d2b7a86e35
key_ben=sk-ben-90b3e6f5127cd8a4
key_eve=sk-eve-c27d5a18e09f4b63

direct=
case "${1-}" in
  "") ;;
  --direct) direct=yes ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac

work=$(mktemp -d "${temporary%/}/tollgate-engine.XXXXXX")
engine_pid=
gateway_pid=
checks_pid=

# shellcheck source=../shared.sh
. "$here/../shared.sh"

finish() {
  local status=$? log
  trap - EXIT INT TERM
  end "$checks_pid"
  end "$gateway_pid"
  end "$engine_pid"
  if [ "$status" -ne 0 ]; then
    for log in engine gateway; do
      if [ -s "$work/$log.log" ]; then
        echo
        echo "--- the end of the $log's log"
        tail -n 40 "$work/$log.log" | cut -c 1-500
      fi
    done
    echo
  fi
  if [ -s "$work/summary" ]; then cat "$work/summary"; else echo "0 passed, 1 failed"; fi
  rm -rf "$work"
  [ "$status" -eq 0 ] || exit 1
}
trap finish EXIT
trap 'exit 1' INT TERM

die() {
  echo "run.sh: $*" >&2
  exit 1
}

# --- the engine ---

# Waits until the URL answers 200; gives up when the process has ended or after 30 seconds.
wait_until_ready() {
  local what=$1 pid=$2 url=$3 waited
  for ((waited = 0; waited < 150; waited++)); do
    if "$venv/bin/python" - "$url" 2>/dev/null <<'PYTHON'
import sys, urllib.request
sys.exit(urllib.request.urlopen(sys.argv[1], timeout=2).status != 200)
PYTHON
    then return 0; fi
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "run.sh: the $what has ended" >&2
      return 1
    fi
    sleep 0.1
  done
  echo "run.sh: the $what is not ready after many tries" >&2
  return 1
}

start_engine() {
  local waited
  "$venv/bin/python" "$here/make_model.py" "$work/tiny.gguf"
  "$venv/bin/python" "$here/serve_engine.py" "$work/tiny.gguf" "$work/addresses.json" >"$work/engine.log" 2>&1 &
  engine_pid=$!
  for ((waited = 0; waited < 300; waited++)); do
    [ ! -e "$work/addresses.json" ] || break
    kill -0 "$engine_pid" 2>/dev/null || die "the engine has ended"
    sleep 0.1
  done
  [ -e "$work/addresses.json" ] || die "the engine did not start within 30 seconds"
  read -r engine embedder < <("$venv/bin/python" -c '
import json, sys
addresses = json.load(open(sys.argv[1]))
print(addresses["chat"], addresses["embed"])' "$work/addresses.json")
  wait_until_ready engine "$engine_pid" "$engine/health" || die "no engine, no test"
}

# --- the gateway ---

write_configuration() {
  cat >"$work/gateway.toml" <<TOML
[server]
listen = "127.0.0.1:$1"
log = "json"

[admin]
listen = "127.0.0.1:$2"

[providers.engine]
preset = "llama-cpp"
base_url = "$engine/v1"

[providers.embedder]
preset = "llama-cpp"
base_url = "$embedder/v1"

# The chat engine again, which serves two at once, as targets that are asked by one at a time.
[providers.one]
preset = "llama-cpp"
base_url = "$engine/v1"

[providers.other]
preset = "llama-cpp"
base_url = "$engine/v1"

[models.tiny]
targets = ["engine/tiny"]

[models.single]
targets = [{ to = "one/tiny", limits = { concurrency = 1 }, queue = { most = 20, wait = "60s" } }]

[models.hasty]
targets = [{ to = "other/tiny", limits = { concurrency = 1 }, queue = { most = 20, wait = "1s" } }]

[models.vectors]
targets = ["embedder/tiny-embed"]

[keys.ann]
key = "$key"
models = ["tiny", "vectors", "engine/*", "single", "hasty"]

[keys.ben]
key = "$key_ben"
models = ["single"]

[keys.eve]
key = "$key_eve"
models = ["single"]
weight = 3
TOML
}

# Two free ports, asked of the system. Another program may take one before the gateway does; then others are tried.
start_gateway() {
  local try port admin_port
  for try in 1 2 3; do
    read -r port admin_port < <("$venv/bin/python" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(server.getsockname()[1] for server in held))')
    write_configuration "$port" "$admin_port"
    (cd "$work" && exec "$gateway" serve -c gateway.toml) >"$work/gateway.log" 2>&1 &
    gateway_pid=$!
    if wait_until_ready gateway "$gateway_pid" "http://127.0.0.1:$admin_port/health/ready"; then
      client_url=http://127.0.0.1:$port
      admin_url=http://127.0.0.1:$admin_port
      return
    fi
    end "$gateway_pid"
    gateway_pid=
    grep -qi 'in use' "$work/gateway.log" || break
  done
  die "the gateway did not start"
}

# --- the checks ---

[ -n "$direct" ] || find_gateway
keep_python "$venv"
# A proxy of the environment was for the package registries; from here on everything talks to this machine only.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
start_engine
export ENGINE_URL=$engine EMBED_URL=$embedder ENGINE_PID=$engine_pid SUMMARY=$work/summary
if [ -n "$direct" ]; then
  export GATEWAY_URL=$engine
else
  start_gateway
  export GATEWAY_URL=$client_url ADMIN_URL=$admin_url GATEWAY_KEY=$key BEN_KEY=$key_ben EVE_KEY=$key_eve
  export GATEWAY_LOG=$work/gateway.log
  export GATEWAY=$gateway LEDGER=$work/tollgate.db
fi
"$venv/bin/python" "$here/checks.py" & # waited for, so that a signal to this script is heard at once
checks_pid=$!
wait "$checks_pid"
