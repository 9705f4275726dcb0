"""Imports every YAML file of LiteLLM's package and judges what comes of it; started by run.sh.

The values of a file are counted by PyYAML, which is what LiteLLM reads it with, and by rules of this file's own.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import yaml

GATEWAY = os.environ["GATEWAY"]
CORPUS = pathlib.Path(os.environ["CORPUS"])
WORK = pathlib.Path(os.environ["WORK"])
SECTIONS = {
    "model_list",
    "litellm_settings",
    "general_settings",
    "router_settings",
    "environment_variables",
    "include",
}
MARKS = ("exact", "approximate", "manual", "unsupported")
# At the end of a name: what stands there may be a secret.
SECRET = re.compile(r"(^|_)(key|secret|password|token|credentials?|database_url)$", re.IGNORECASE)
LEAF = re.compile(r"^#   (.+) \(line (\d+)\)$")

passed = 0
failures = []


def check(what, holds, why=""):
    global passed
    if holds:
        passed += 1
    else:
        failures.append(what)
        print(f"FAILED: {what}\n{why[:600]}".rstrip(), flush=True)


def run(*arguments, env=None):
    command = [GATEWAY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env or {}, cwd=WORK, timeout=60)
    return done.returncode, done.stdout, done.stderr


def part(key):
    """A key as a part of a path."""
    key = str(key)
    return key if re.fullmatch(r"[\w-]+", key) else f'"{key}"'


def leaves(value, path=""):
    """Each single value, and each list or map without anything in it, by its path."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}.{part(key)}" if path else part(key))
    elif isinstance(value, list) and value:
        for n, below in enumerate(value):
            yield from leaves(below, f"{path}[{n}]")
    else:
        yield path, value


def secrets(value, name=""):
    """Each text that stands where secrets do."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from secrets(below, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from secrets(below, name)
    elif isinstance(value, str) and SECRET.search(name) and not value.startswith("os.environ/") and len(value) > 3:
        yield value


def imported(name, file, value):
    """What holds for a configuration of the proxy."""
    code, out, err = run("import", "litellm", file)
    check(f"{name}: is imported", code == 0, err)
    if code != 0:
        return
    told = out[out.index("# What became of each value") :]
    listed = collections.Counter(match[1] for line in told.splitlines() if (match := LEAF.match(line)))
    wanted = collections.Counter(path for path, _ in leaves(value))
    check(f"{name}: every value is accounted for, once", listed == wanted, f"{listed - wanted} {wanted - listed}")
    counts = [int(n) for n in re.findall(r"(\d+) (?:%s)" % "|".join(MARKS), out.splitlines()[0])]
    check(f"{name}: the counts are true", len(counts) == 4 and sum(counts) == wanted.total(), out.splitlines()[0])
    found = [secret for secret in secrets(value) if secret in out + err]
    check(f"{name}: no secret is told", not found, f"{len(found)} of them are")
    folder = WORK / name.replace("/", "_")
    folder.mkdir()
    target = folder / "gateway.toml"
    code, out_again, err = run("import", "litellm", file, "--output", target)
    check(f"{name}: the same is written to a file", code == 0 and out_again == "" and target.read_text() == out, err)
    code, _, err = run("import", "litellm", file, "--output", target)
    check(f"{name}: nothing is written over", code == 1 and "--force" in err, err)
    tomllib.loads(out)
    env = {variable: "dummy-of-the-test" for variable in re.findall(r'"env:([^"]+)"', out)}
    code, told, err = run("check", "--config", target, env=env)
    check(f"{name}: passes `tollgate check`", code == 0, told + err)


def main():
    files = sorted(path for end in ("*.yaml", "*.yml") for path in CORPUS.rglob(end))
    configurations = 0
    for file in files:
        name = str(file.relative_to(CORPUS))
        value = yaml.safe_load(file.read_text())
        if isinstance(value, dict) and SECTIONS & value.keys():
            configurations += 1
            imported(name, file, value)
        else:
            code, out, err = run("import", "litellm", file)
            one_line = err.count("\n") == 1 and err.startswith(str(file))
            check(f"{name}: is refused in one line", (code, out) == (1, "") and one_line, err)
    check("the corpus has configurations", configurations >= 20, str(configurations))
    print(f"{len(files)} files, {configurations} of them configurations of the proxy")
    with open(os.environ["SUMMARY"], "w") as summary:
        print(f"{passed} passed, {len(failures)} failed", file=summary)
    sys.exit(bool(failures))


main()
