"""What the checks of this folder have in common: each has a name, says what is wrong with it, and is counted."""

import os
import traceback

counts = {True: 0, False: 0}


class Wrong(Exception):
    """What was found does not hold."""


def need(holds, message):
    if not holds:
        raise Wrong(message)


def check(name, function, *arguments):
    try:
        function(*arguments)
    except Wrong as wrong:
        return told(name, False, str(wrong))
    except Exception:
        return told(name, False, traceback.format_exc())
    return told(name, True)


def told(name, passed, message=""):
    counts[passed] += 1
    print("ok    " if passed else "FAILED", name, flush=True)
    if message:
        print("       " + message.strip().replace("\n", "\n       "), flush=True)
    return passed


def skip(name, why):
    print("SKIPPED", name + ":", why, flush=True)


def end():
    """Counts for run.sh; the status of the program."""
    with open(os.environ["SUMMARY"], "a", encoding="utf-8") as file:
        file.write(f"{counts[True]} {counts[False]}\n")
    return 1 if counts[False] else 0
