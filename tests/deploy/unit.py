"""What systemd makes of the unit: its own checks, and whether the gateway does with what its filter of system calls leaves.

    python unit.py COPY [TRACE]

COPY is the unit with the gateway's path put in; TRACE is what strace saw of a gateway that started, answered and ended.
"""

import os
import pathlib
import re
import subprocess
import sys

from house import Wrong, check, end, need, skip

UNIT = pathlib.Path(os.environ["ROOT"]) / "deploy/tollgate.service"
USERS = pathlib.Path(os.environ["ROOT"]) / "deploy/systemd/sysusers.conf"
ANALYZE = os.environ["ANALYZE"]
# Tenths: the strictest threshold that it holds. What is left is what a gateway cannot do without: the network and sockets (0.9),
# the host's files to run from (0.1), and a clock that may be read (0.1).
EXPOSURE = 11


def analyze(*arguments):
    done = subprocess.run([ANALYZE, *map(str, arguments)], capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_PAGER": ""})
    if done.returncode or "Unknown key" in done.stderr:
        raise Wrong(f"{done.stdout[-2000:]}{done.stderr}")
    return done.stdout


def it_is_hardened():
    analyze("security", "--offline=true", f"--threshold={EXPOSURE}", UNIT)


def it_says_what_was_promised():
    text = UNIT.read_text()
    for line in (
        "Type=notify", r"WatchdogSec=\d+s", r"ExecReload=kill -HUP \$MAINPID", "StateDirectory=tollgate", "User=tollgate",
        "EnvironmentFile=-/etc/tollgate/secrets.env", "NotifyAccess=main", "WantedBy=multi-user.target",
    ):  # fmt: skip
        need(re.search(f"^{line}$", text, re.M), f"it has no {line}")
    need(re.search("^u tollgate ", USERS.read_text(), re.M), "its user is not made")


def calls(name, seen=()):
    """The system calls of a set of systemd's."""
    out = set()
    for line in analyze("syscall-filter", name).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            need(word not in seen, f"{word} holds itself")
            out |= calls(word, (*seen, name))
        elif word and not word.startswith("#"):
            out.add(word)
    return out


def filter_lets_it_work(trace):
    allowed, seen = set(), set(re.findall(r"^\d+ +(\w+)\(", pathlib.Path(trace).read_text(), re.M))
    need({"execve", "accept4", "epoll_wait"} <= seen, f"the trace is none: {sorted(seen)}")
    for line in re.findall("^SystemCallFilter=(.+)$", UNIT.read_text(), re.M):
        for name in line.lstrip("~").split():
            allowed = allowed - calls(name) if line.startswith("~") else allowed | calls(name)
    # The ledger gives its files to whom they belonged: as root only, which the unit never is.
    if os.geteuid() == 0:
        seen.discard("fchown")
    need(len(allowed) > 100, f"it allows {sorted(allowed)}")
    need(seen <= allowed, f"it calls {sorted(seen - allowed)}, and may not")


check("tollgate.service: systemd-analyze verify", analyze, "verify", "--man=no", sys.argv[1])
check(f"tollgate.service: systemd-analyze security --threshold={EXPOSURE}", it_is_hardened)
check("tollgate.service: what it says", it_says_what_was_promised)
if len(sys.argv) > 2:
    check("tollgate.service: its filter of system calls", filter_lets_it_work, sys.argv[2])
else:
    skip("tollgate.service: its filter of system calls", "there is no strace, or it may not trace")
sys.exit(end())
