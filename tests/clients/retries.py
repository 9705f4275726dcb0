"""The checks of the client test in Python: how OpenAI's and Anthropic's clients take each 429 and 503 of the gateway's.

    retries.py openai | anthropic

run.sh starts everything and tells where it is through the environment:

    PROVIDER                   the scripted provider, without /v1
    MAIN, MAIN_ADMIN           a gateway for clients, without /v1, and for operators
    NARROW, NARROW_ADMIN       one that takes one request at a time
    FULL, FULL_ADMIN           one whose ledger cannot be written; empty where that cannot be arranged
    LEAVING, LEAVING_PID       one that is told to stop here, and lets answers finish for a second
    LIMITED, LIMITED_ADMIN     one whose keys have limits; empty if those are not to be checked
    SUMMARY                    file that gets how many checks passed, and how many failed

Requests are counted by the gateway, so that what a client hides behind a retry shows. retries.mjs has the same checks.
Anthropic's client has its retries in common for all that it posts; the gateway's path is one of OpenAI's here.
"""

import contextlib
import faulthandler
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor

PROVIDER = os.environ["PROVIDER"]
HELLO = [{"role": "user", "content": "hello"}]
KEYS = {name: f"sk-{name}-5d41402abc4b2a76" for name in ("ann", "poor", "rich", "one", "two")}


# --- the clients ------------------------------------------------------------------------------------------------------


class OpenAi:
    def __init__(self):
        import openai

        self.errors = openai

    def ask(self, gateway, key, model, retries):
        client = self.errors.OpenAI(base_url=gateway + "/v1", api_key=KEYS[key], timeout=20, max_retries=retries)
        with client:
            return client.chat.completions.create(model=model, messages=HELLO, max_tokens=10).choices[0].message.content

    def code(self, error):
        return error.code


class Anthropic:
    def __init__(self):
        import anthropic

        self.errors = anthropic

    def ask(self, gateway, key, model, retries):
        body = {"model": model, "messages": HELLO, "max_tokens": 10}
        client = self.errors.Anthropic(base_url=gateway, api_key=KEYS[key], timeout=20, max_retries=retries)
        with client:
            answer = client.post("/v1/chat/completions", cast_to=object, body=body)
            return answer["choices"][0]["message"]["content"]

    def code(self, error):
        return error.body["error"]["code"]


CLIENT = {"openai": OpenAi, "anthropic": Anthropic}[sys.argv[1]]()


# --- the checks' frame ------------------------------------------------------------------------------------------------

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Skipped(Exception):
    """What this check needs is not there."""


def equal(actual, expected, what):
    assert actual == expected, f"{what}: expected {expected!r}, got {actual!r}"


def eventually(what, probe, seconds=5):
    """Waits until `probe` holds; what a gateway counts may be a moment later than what a client sees."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return probe()
        except AssertionError as problem:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: still wrong after {seconds} s: {problem}") from None
        time.sleep(0.02)


@contextlib.contextmanager
def refused(kind, status, code):
    """The block must fail with this error of the client's; the error is in `caught.error` afterwards."""
    caught = type("Caught", (), {"error": None})()
    try:
        yield caught
    except getattr(CLIENT.errors, kind) as error:
        equal((error.status_code, CLIENT.code(error)), (status, code), "status and code")
        caught.error = error
    else:
        raise AssertionError(f"expected {kind}, got an answer")


@contextlib.contextmanager
def took(least, most):
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    assert least <= seconds <= most, f"took {seconds:.2f} s, which is not within {least} and {most}"


def fetch(url, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


def script(model, *acts):
    fetch(f"{PROVIDER}/script/{model}", acts)


def asked(model):
    return int(fetch(f"{PROVIDER}/asked/{model}"))


REQUESTS = re.compile(r'^tollgate_requests_total\{.*status="(\d+)".*\} (\d+)$', re.MULTILINE)


def requests(admin):
    """How many requests a gateway has answered, by status."""
    counts = {}
    for status, count in REQUESTS.findall(fetch(admin + "/metrics")):
        counts[int(status)] = counts.get(int(status), 0) + int(count)
    return counts


@contextlib.contextmanager
def counted(admin, **expected):
    """The gateway must answer just so many requests meanwhile: `s429=1, s200=1`."""
    before = requests(admin)
    yield
    wanted = {int(status[1:]): count for status, count in expected.items()}

    def probe():
        more = {status: count - before.get(status, 0) for status, count in requests(admin).items()}
        equal({status: count for status, count in more.items() if count}, wanted, "requests by status")

    eventually("requests at the gateway", probe)


@contextlib.contextmanager
def held(gateway, key, model):
    """A request is under way meanwhile, unless it is released."""
    script(model, {"hold": True})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(CLIENT.ask, gateway, key, model, 0)
        try:
            eventually("a held request", lambda: equal(asked(model), 1, "requests at the provider"))
            yield
        finally:
            fetch(f"{PROVIDER}/release/{model}", {})
        equal(answer.result(10), "hello", "the held answer")


def release_after_refusal(admin, model, status):
    """Lets go what is held once somebody was refused."""
    before = requests(admin).get(status, 0)

    def wait():
        eventually("a refusal", lambda: equal(requests(admin).get(status, 0), before + 1, "refusals"))
        fetch(f"{PROVIDER}/release/{model}", {})

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


# --- the checks -------------------------------------------------------------------------------------------------------

MAIN, MAIN_ADMIN = os.environ["MAIN"], os.environ["MAIN_ADMIN"]


@check
def a_budget_that_is_used_up_is_told_at_once():
    with counted(MAIN_ADMIN, s429=1), took(0, 1), refused("RateLimitError", 429, "budget_exceeded"):
        CLIENT.ask(MAIN, "poor", "fine", 3)


@check
def a_model_that_nobody_can_serve_is_told_at_once():
    with counted(MAIN_ADMIN, s503=1), took(0, 1), refused("InternalServerError", 503, "no_target_available"):
        CLIENT.ask(MAIN, "ann", "nobody", 3)


@check
def a_model_without_a_price_is_told_at_once():
    with counted(MAIN_ADMIN, s503=1), took(0, 1), refused("InternalServerError", 503, "no_target_available"):
        CLIENT.ask(MAIN, "rich", "unpriced", 3)


@check
def a_provider_that_fails_is_not_seen_where_another_answers():
    script("ill", {"status": 503})
    with counted(MAIN_ADMIN, s200=1), took(0, 1):
        equal(CLIENT.ask(MAIN, "ann", "second", 3), "hello", "answer")
    equal(asked("ill"), 1, "requests at the provider that fails")


@check
def rate_limits_of_all_providers_are_waited_for_as_they_say():
    for model in ("busy-one", "busy-two"):
        script(model, {"status": 429, "headers": {"retry-after": "1"}})
    with counted(MAIN_ADMIN, s429=1, s200=1), took(1, 3):
        equal(CLIENT.ask(MAIN, "ann", "busy", 2), "hello", "answer")


@check
def a_gateway_that_has_no_place_is_asked_again_when_it_says():
    narrow, admin = os.environ["NARROW"], os.environ["NARROW_ADMIN"]
    with counted(admin, s503=1, s200=2), held(narrow, "ann", "held"):
        releasing = release_after_refusal(admin, "held", 503)
        with took(1, 3):
            equal(CLIENT.ask(narrow, "ann", "held", 2), "hello", "answer")
        releasing.join()


@check
def a_ledger_that_cannot_be_written_is_asked_again_when_it_says():
    full, admin = os.environ["FULL"], os.environ["FULL_ADMIN"]
    if not full:
        raise Skipped("the size of a process's files cannot be limited here")
    with counted(admin, s503=2), took(1, 3), refused("InternalServerError", 503, "ledger_unavailable"):
        CLIENT.ask(full, "rich", "fine", 1)
    with counted(admin, s200=1):
        equal(CLIENT.ask(full, "ann", "fine", 0), "hello", "the answer to whoever has no budget")


@check
def limits_of_keys_are_waited_for_as_they_say():
    limited, admin = os.environ["LIMITED"], os.environ["LIMITED_ADMIN"]
    with counted(admin, s429=2, s200=2), held(limited, "one", "held"):
        with refused("RateLimitError", 429, "rate_limit_exceeded") as caught:
            CLIENT.ask(limited, "one", "held", 0)
        wait = float(caught.error.response.headers["retry-after-ms"]) / 1000
        assert 0 < wait <= 5, f"retry-after-ms says {wait} s"
        releasing = release_after_refusal(admin, "held", 429)
        with took(wait, wait + 2):
            equal(CLIENT.ask(limited, "one", "held", 2), "hello", "answer")
        releasing.join()


@check
def limits_by_the_minute_say_when_they_end():
    limited = os.environ["LIMITED"]
    # Whoever was here before has used it up.
    with refused("RateLimitError", 429, "rate_limit_exceeded") as caught:
        for _ in range(3):
            CLIENT.ask(limited, "two", "fine", 0)
    headers = caught.error.response.headers
    wait = float(headers["retry-after-ms"]) / 1000
    assert 0 < wait <= 60, f"retry-after-ms says {wait} s"
    assert wait <= int(headers["retry-after"]) <= 60, f"retry-after says {headers['retry-after']}"
    equal(headers["x-should-retry"], "true", "x-should-retry")


@check
def a_gateway_that_stops_is_asked_again():
    leaving = os.environ["LEAVING"]
    script("held", {"hold": True}, {"hold": True})
    errors = CLIENT.errors
    with ThreadPoolExecutor(2) as pool:
        once = pool.submit(CLIENT.ask, leaving, "ann", "held", 0)
        again = pool.submit(CLIENT.ask, leaving, "ann", "held", 1)
        try:
            eventually("held requests", lambda: equal(asked("held"), 2, "requests at the provider"))
            os.kill(int(os.environ["LEAVING_PID"]), signal.SIGTERM)
            with refused("InternalServerError", 503, "shutting_down") as caught:
                once.result(15)
            equal(caught.error.response.headers["x-should-retry"], "true", "x-should-retry")
            try:
                again.result(15)
            except errors.APIConnectionError:
                pass  # it came back after it was told so, and nobody was there
            else:
                raise AssertionError("expected APIConnectionError, got an answer")
        finally:
            fetch(f"{PROVIDER}/release/held", {})


def main():
    # Whatever hangs is shown where it does, and ends.
    faulthandler.dump_traceback_later(60, exit=True)
    passed, failed = 0, 0
    for function in CHECKS:
        name = f"{sys.argv[1]}: {function.__name__.replace('_', ' ')}"
        try:
            function()
        except Skipped as why:
            print(f"skip  {name}: {why}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print(f"ok    {name}", flush=True)
    with open(os.environ["SUMMARY"], "a") as summary:
        print(passed, failed, file=summary)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
