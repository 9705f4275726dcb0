#!/usr/bin/env bash
# The import test: what `tollgate import litellm` makes of every YAML file in LiteLLM's own Python package.
#
#   tests/import/run.sh                  the gateway of this checkout
#   TOLLGATE=path tests/import/run.sh    another gateway
#
# What it does, in this order:
#   1. a Python environment outside the repository with exactly what requirements.txt pins, without what that would need to
#      run (about 150 MB; made once and kept; made anew when requirements.txt or the Python changes);
#   2. the checks (checks.py), file by file: a configuration of the proxy is imported, anything else is an error of one line
#      that names the file; the report has every value of the file, counted by another parser, exactly once; the result
#      passes `tollgate check` with dummies in the variables it names; no key, password or token that stands in the file is
#      in anything that is printed; twice the same is twice the same.
# Nothing is downloaded but the Python packages, and all files but the environment are removed, however this script ends.
# After the installation it takes about ten seconds.
#
# Needs: bash, python3 (3.11 or later, with venv and pip), and the gateway's binary or cargo to build it.
#
# Settings, from the environment:
#   TOLLGATE              the gateway's binary. Default: target/release/tollgate, built if it is not there
#   TOLLGATE_IMPORT_VENV  where the Python environment is kept. Default: tollgate-import-venv in $TMPDIR or /tmp
#   PYTHON                the Python to make it with. Default: python3
#
# The last line is `N passed, M failed`. Exit status: 0 if all passed, else 1.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
temporary=${TMPDIR:-/tmp}
venv=${TOLLGATE_IMPORT_VENV:-${temporary%/}/tollgate-import-venv}
python=${PYTHON:-python3}

[ $# -eq 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

work=$(mktemp -d "${temporary%/}/tollgate-import.XXXXXX")

finish() {
  local status=$?
  trap - EXIT INT TERM
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

# shellcheck source=../shared.sh
. "$here/../shared.sh"

find_gateway
keep_python "$venv" --no-deps --no-compile
corpus=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/litellm")')
[ -d "$corpus" ] || die "$corpus is not there"
GATEWAY=$gateway CORPUS=$corpus WORK=$work SUMMARY=$work/summary "$venv/bin/python" "$here/checks.py"
