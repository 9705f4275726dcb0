#!/usr/bin/env bash
# The client test: what real clients make of what the gateway answers, and of what it refuses. OpenAI's clients in Python
# and Node, LangChain's, esperanto, litellm's, the Vercel AI SDK and async-openai ask at each endpoint that they have, whole
# and as streams, and must show content, tool calls, usage and errors as they would of OpenAI; then all that the provider has billed must be
# in the ledger, to the billionth of a dollar. OpenAI's and Anthropic's clients in Python and OpenAI's in Node meet each 429
# and 503 of the gateway's own, and must retry, wait or give up as its headers say.
#
#   tests/clients/run.sh                  the gateway of this checkout
#   TOLLGATE=path tests/clients/run.sh    another gateway
#
# What it does, in this order:
#   1. the clients, exactly as requirements.txt, package.json and rust/Cargo.lock pin them, into target/clients (470 MB for
#      Python, 55 MB for Node, 350 MB for Rust, which takes three minutes to build; made once and kept; made anew when one
#      of those, the Python or the Node changes);
#   2. two scripted providers: one that answers, refuses or waits as it is told (provider.py), and one that answers in each
#      shape of OpenAI's (shapes.py), reads uploads by a parser of its own, and keeps books;
#   3. gateways in front of them: a plain one, one that takes one request at a time, one whose ledger's disk is full, one whose
#      keys have limits, one for the answers, and for each client that retries one that is told to stop;
#   4. the checks, client by client: how they retry (retries.py, retries.mjs; requests are counted by the gateways' metrics),
#      and what they are answered (answers.py, answers.mjs, rust), with the books at the end; then OpenAI's clients once
#      more over TLS, with a certificate that they trust as they would a company's, and other books.
# Nothing is downloaded but the clients; ports are picked by the system; everything started is ended, and all files but
# the clients are removed, however this script ends. After the installation it takes about a minute.
#
# Needs: bash, python3 (3.10 or later, with venv and pip), node (20 or later) with npm, and the gateway's binary or cargo to
# build it; cargo also for async-openai, which is left out without it; openssl for the certificate, without which nothing is
# asked over TLS. Where a process's files cannot be limited (Linux only),
# the full disk is left out. What is left out is said.
#
# Settings, from the environment:
#   TOLLGATE   the gateway's binary. Default: target/release/tollgate, built if it is not there
#   PYTHON     the Python to use. Default: python3
#
# The last line is `N passed, M failed`. Exit status: 0 if all passed, else 1. If something failed, the ends of the
# gateways' logs come before it; a failure to start anything counts as one failed check.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
clients=$target/clients
python=${PYTHON:-python3}
temporary=${TMPDIR:-/tmp}

[ $# -eq 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

work=$(mktemp -d "${temporary%/}/tollgate-clients.XXXXXX")
provider_pids=()
checks_pid=
gateway_pids=()

# shellcheck source=../shared.sh
. "$here/../shared.sh"

finish() {
  local status=$? log pid
  trap - EXIT INT TERM
  end "$checks_pid"
  # The providers first: what they hold would hold the gateways up.
  for pid in "${provider_pids[@]}"; do end "$pid"; done
  for pid in "${gateway_pids[@]}"; do end "$pid"; done
  if [ "$status" -ne 0 ]; then
    for log in "$work"/*.log; do
      if [ -s "$log" ]; then
        echo
        echo "--- the end of $(basename "$log")"
        tail -n 20 "$log" | cut -c 1-500
      fi
    done
    echo
  fi
  if [ -s "$work/summary" ]; then
    awk '{ passed += $1; failed += $2 } END { print passed " passed, " failed " failed" }' "$work/summary"
  else
    echo "0 passed, 1 failed"
  fi
  rm -rf "$work"
  [ "$status" -eq 0 ] || exit 1
}
trap finish EXIT
trap 'exit 1' INT TERM

die() {
  echo "run.sh: $*" >&2
  echo "0 1" >>"$work/summary"
  exit 1
}

# --- 1. the clients ---

# They are used as they are if their stamp says that they came from the same pins, the same Python and the same Node.
prepare_clients() {
  local stamp program
  for program in "$python" node npm; do
    command -v "$program" >/dev/null || die "$program is not installed"
  done
  stamp="$("$python" -c 'import sys; print(sys.executable, sys.version)') $(node --version)
$(cat "$here/requirements.txt" "$here/package.json")"
  if [ "$(cat "$clients/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  echo "installing the clients into $clients"
  rm -rf "$clients/python" "$clients/node" "$clients/stamp"
  mkdir -p "$clients"
  make_python "$clients/python"
  mkdir "$clients/node"
  cp "$here/package.json" "$clients/node/"
  (cd "$clients/node" && npm install --silent --no-package-lock --ignore-scripts --no-audit --no-fund) \
    || die "the packages of package.json could not be installed"
  printf '%s\n' "$stamp" >"$clients/stamp"
}

# Cargo sees itself whether it is built already.
prepare_rust() {
  rust=
  if ! command -v cargo >/dev/null; then
    echo "left out, because cargo is not installed: async-openai"
    return
  fi
  cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$clients/rust" \
    || die "async-openai could not be built"
  rust=$clients/rust/debug/answers
}

# --- 2. the providers ---

# Starts the provider of a program, by a name of its own if there is one; its address is then in `address`.
start_provider() {
  local program=$1 name=${2:-$1} pid waited
  "$clients/python/bin/python" "$here/$program.py" "$work/$name" >"$work/$name.log" 2>&1 &
  pid=$!
  provider_pids+=("$pid")
  for ((waited = 0; waited < 100; waited++)); do
    [ ! -e "$work/$name" ] || break
    kill -0 "$pid" 2>/dev/null || die "the provider has ended: $name"
    sleep 0.1
  done
  [ -e "$work/$name" ] || die "the provider did not start within 10 seconds: $name"
  address=$(cat "$work/$name")
}

# --- 3. the gateways ---

# What all gateways have in common, with further lines for [server] and further sections.
write_configuration() {
  cat <<TOML
[server]
listen = "127.0.0.1:$1"
log = "json"
$3

[admin]
listen = "127.0.0.1:$2"

[providers.p]
preset = "openai-compatible"
base_url = "$provider/v1"
tries = 1

[providers.keyless]
preset = "openai-compatible"
base_url = "$provider/v1"
api_key = "env:TOLLGATE_CLIENTS_NOT_SET"

[models.fine]
targets = [{ to = "p/fine", price = { input = 1, output = 1 } }]

[models.held]
targets = ["p/held"]

[models.second]
targets = ["p/ill", "p/fine"]

[models.busy]
targets = ["p/busy-one", "p/busy-two"]

[models.nobody]
targets = ["keyless/fine"]

[models.unpriced]
targets = ["p/unpriced"]

[keys.ann]
key = "sk-ann-5d41402abc4b2a76"

[keys.poor]
key = "sk-poor-5d41402abc4b2a76"
budget = { usd = 0, per = "total" }

[keys.rich]
key = "sk-rich-5d41402abc4b2a76"
budget = { usd = 100, per = "total" }

$4
TOML
}

# Waits until the gateway is ready; gives up when it has ended or after 15 seconds.
wait_until_ready() {
  local pid=$1 url=$2 waited
  for ((waited = 0; waited < 150; waited++)); do
    if "$clients/python/bin/python" - "$url" 2>/dev/null <<'PYTHON'
import sys, urllib.request
sys.exit(urllib.request.urlopen(sys.argv[1], timeout=2).status != 200)
PYTHON
    then return 0; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}

# Starts the gateway of a name in a folder of its own; its addresses are then in `url` and `admin`, its pid in `pid`. Two
# free ports are asked of the system. Another program may take one before the gateway does; then others are tried.
start_gateway() {
  local name=$1 server=$2 more=$3 try port admin_port
  mkdir "$work/$name"
  for try in 1 2 3; do
    read -r port admin_port < <("$clients/python/bin/python" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(server.getsockname()[1] for server in held))')
    write_configuration "$port" "$admin_port" "$server" "$more" >"$work/$name/gateway.toml"
    (cd "$work/$name" && exec "$gateway" serve -c gateway.toml) >"$work/$name.log" 2>&1 &
    pid=$!
    gateway_pids+=("$pid")
    if wait_until_ready "$pid" "http://127.0.0.1:$admin_port/health/ready"; then
      url=http://127.0.0.1:$port
      admin=http://127.0.0.1:$admin_port
      return
    fi
    end "$pid"
    grep -qi 'in use' "$work/$name.log" || break
  done
  die "the gateway did not start: $name"
}

start_gateways() {
  start_gateway main '' ''
  export MAIN=$url MAIN_ADMIN=$admin
  start_gateway narrow 'max_in_flight = 1' ''
  export NARROW=$url NARROW_ADMIN=$admin
  start_gateway full '' ''
  # From here on no file of its process grows.
  if "$clients/python/bin/python" -c '
import resource, sys
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.prlimit(int(sys.argv[1]), resource.RLIMIT_FSIZE, (1, most))' "$pid" 2>/dev/null; then
    export FULL=$url FULL_ADMIN=$admin
  else
    export FULL='' FULL_ADMIN=''
  fi
  start_gateway limited '' '
[keys.one]
key = "sk-one-5d41402abc4b2a76"
limits = { concurrency = 1 }

[keys.two]
key = "sk-two-5d41402abc4b2a76"
limits = { rpm = 2 }
'
  export LIMITED=$url LIMITED_ADMIN=$admin
  start_answers answers ''
}

# The gateway of a name before the provider of all shapes, with further lines for [server].
start_answers() {
  start_gateway "$1" "$2" "
[providers.shapes]
preset = \"openai-compatible\"
base_url = \"$SHAPES/v1\"
api_key = \"sk-provider-5d41402abc4b2a76\"
tries = 1

$("$clients/python/bin/python" "$here/shapes.py" --models)"
  export ANSWERS=$url ANSWERS_FOLDER=$work/$1
}

# The same over TLS: Python's clients learn whom to trust by one variable, Node's by another.
start_secure() {
  start_provider shapes secure-shapes
  export SHAPES=$address
  make_certificate "$work"
  start_answers secure "tls = { cert = \"$work/tls.crt\", key = \"$work/tls.key\" }"
  export ANSWERS=https://localhost:${url##*:} SSL_CERT_FILE=$work/tls.crt NODE_EXTRA_CA_CERTS=$work/tls.crt
}

# --- 4. the checks ---

# Runs the checks of one client's retries, which get a gateway that they stop.
run_retries() {
  start_gateway "leaving-$1" 'drain = "1s"' ''
  export LEAVING=$url LEAVING_PID=$pid
  shift
  run_checks "$@"
}

# Runs the checks of one client.
run_checks() {
  "$@" & # waited for, so that a signal to this script is heard at once
  checks_pid=$!
  wait "$checks_pid" || failed=1
  checks_pid=
  # What did not come to its end has not counted itself.
  [ "$(wc -l <"$work/summary")" -eq "$((ran += 1))" ] || { echo "0 1" >>"$work/summary"; failed=1; }
}

find_gateway
prepare_clients
prepare_rust
# A proxy of the environment was for the package registries; from here on everything talks to this machine only.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
start_provider provider
provider=$address
start_provider shapes
export PROVIDER=$provider SHAPES=$address GATEWAY=$gateway SUMMARY=$work/summary MODULES=$clients/node
start_gateways
failed=
ran=0
: >"$work/summary"
for client in openai anthropic; do
  run_retries "$client" "$clients/python/bin/python" "$here/retries.py" "$client"
done
run_retries node node "$here/retries.mjs"
for client in openai langchain esperanto litellm; do
  run_checks "$clients/python/bin/python" "$here/answers.py" "$client"
done
for client in openai ai; do
  run_checks node "$here/answers.mjs" "$client"
done
[ -z "$rust" ] || run_checks "$rust"
run_checks "$clients/python/bin/python" "$here/answers.py" books
if command -v openssl >/dev/null; then
  echo "over TLS"
  start_secure
  run_checks "$clients/python/bin/python" "$here/answers.py" openai
  run_checks node "$here/answers.mjs" openai
  run_checks "$clients/python/bin/python" "$here/answers.py" books
else
  echo "left out, because openssl is not installed: clients over TLS"
fi
[ -z "$failed" ]
