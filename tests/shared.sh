# What the programs in the folders beside this one have in common. They set `root`, `here` and `python`, and have `die`.
# shellcheck shell=bash disable=SC2154 # set there

# Ends one process by its pid: politely, and after five seconds for good.
end() {
  local pid=$1 waited
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || true
  for ((waited = 0; waited < 50; waited++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# Finds the gateway's binary, or builds it; it is then in `gateway`.
find_gateway() {
  gateway=${TOLLGATE:-}
  if [ -z "$gateway" ]; then
    gateway=${CARGO_TARGET_DIR:-$root/target}/release/tollgate
    if [ ! -x "$gateway" ]; then
      echo "building the gateway"
      (cd "$root" && cargo build --release --locked)
    fi
  fi
  [ -x "$gateway" ] || die "$gateway is not there or cannot be run"
  gateway=$(cd "$(dirname "$gateway")" && pwd)/$(basename "$gateway")
}

# Makes a certificate for localhost that nobody vouches for but itself: tls.crt and tls.key in a folder.
make_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$1/tls.key" -out "$1/tls.crt" 2>/dev/null || die "openssl made no certificate"
}

# Makes a Python environment in a folder, with what requirements.txt pins. Further arguments are pip's.
make_python() {
  local folder=$1
  shift
  "$python" -m venv --clear "$folder" || die "$python cannot make a virtual environment; some systems have that in a package of its own"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" --requirement "$here/requirements.txt" \
    || die "the packages of requirements.txt could not be installed"
}

# The same, for one that is kept outside of the repository: it is used as it is if its stamp says that it came from the same
# requirements and the same Python.
keep_python() {
  local folder=$1 stamp
  command -v "$python" >/dev/null || die "$python is not installed"
  stamp=$("$python" -c '
import hashlib, sys
pinned = open(sys.argv[1], "rb").read()
print(sys.executable, sys.version, hashlib.sha256(pinned).hexdigest())' "$here/requirements.txt" | tr '\n' ' ')
  if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  echo "installing the Python packages into $folder"
  if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    die "$folder is there and is no Python environment; not touching it"
  fi
  rm -f "$folder/stamp"
  make_python "$@"
  printf %s "$stamp" >"$folder/stamp"
}
