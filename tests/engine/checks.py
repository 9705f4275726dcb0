"""The checks of the engine test: what a client sees of the gateway when a real llama.cpp engine is behind it.

run.sh starts everything and tells where it is through the environment:

    GATEWAY_URL   the gateway for clients, without /v1          ENGINE_URL  the chat engine itself
    ADMIN_URL     the gateway for operators                     EMBED_URL   the embedding engine itself
    GATEWAY_KEY   a virtual key that may use it                 SUMMARY     file that gets the last line
    BEN_KEY       one for `single` only                         EVE_KEY     another, with the weight of three
    GATEWAY_LOG   what the gateway wrote
    GATEWAY       the gateway's binary                          LEDGER      the file that its ledger is in
    ENGINE_PID    the process of both engines, which does not outlive the last checks

Without ADMIN_URL there is no gateway: GATEWAY_URL is the engine's own address, and only those checks run that hold for
any OpenAI-compatible server. That is how the checks themselves are checked (`run.sh --direct`).

Each check is a function; they run in the order of this file, because the books at the end are about all that came
before. A departed client leaves an engine's and a gateway's counts at different points, so departures come late; and no
engine is there any more once it was killed.
"""

import contextlib
import faulthandler
import functools
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from urllib.parse import urlsplit

import openai

GATEWAY_URL = os.environ["GATEWAY_URL"]
ADMIN_URL = os.environ.get("ADMIN_URL")
ENGINE_URL = os.environ["ENGINE_URL"]
EMBED_URL = os.environ.get("EMBED_URL")
KEY = os.environ.get("GATEWAY_KEY", "none")
KEYS = {"ann": KEY, "ben": os.environ.get("BEN_KEY"), "eve": os.environ.get("EVE_KEY")}

HELLO = [{"role": "user", "content": "hello there"}]
SLOW = 12000  # tokens: as an answer or as a prompt, the engine needs ten seconds or more for so many
FRESH, CACHED, OUTPUT = "input", "cached", "output"


# --- the checks' frame ------------------------------------------------------------------------------------------------

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def gateway_only(function):
    """A check of something that an engine alone does not have. Comes below `@check`."""
    function.gateway_only = True
    return function


def equal(actual, expected, what):
    assert actual == expected, f"{what}: expected {expected!r}, got {actual!r}"


@contextlib.contextmanager
def refused(kind, status):
    """The block must fail with this error of the OpenAI client; its details are in `caught.error` afterwards."""
    caught = type("Caught", (), {"error": None})()
    try:
        yield caught
    except kind as error:
        equal(error.status_code, status, "status")
        caught.error = error
    else:
        raise AssertionError(f"expected {kind.__name__}, got an answer")


def eventually(what, probe, seconds, pause=0.05):
    """Waits until `probe` holds; what a gateway counts may be a moment later than what a client sees."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return probe()
        except AssertionError as problem:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: still wrong after {seconds} s: {problem}") from None
        time.sleep(pause)


def client(base=GATEWAY_URL + "/v1", key=KEY):
    return openai.OpenAI(base_url=base, api_key=key, timeout=30, max_retries=0)


# --- what was spent, according to the engine's own answers ------------------------------------------------------------


class Spent:
    """Requests, streams and tokens that the checks saw answered; compared with the gateway's and the engine's counts."""

    def __init__(self):
        self.tokens = {FRESH: 0, CACHED: 0, OUTPUT: 0}
        self.answers = {}  # (api, model, status) -> how many
        self.streams = 0
        self.lock = threading.Lock()

    def usage(self, usage):
        cached = usage.prompt_tokens_details.cached_tokens or 0
        equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")
        with self.lock:
            self.tokens[FRESH] += usage.prompt_tokens - cached
            self.tokens[CACHED] += cached
            self.tokens[OUTPUT] += usage.completion_tokens

    def response_usage(self, usage):
        cached = usage.input_tokens_details.cached_tokens
        equal(usage.total_tokens, usage.input_tokens + usage.output_tokens, "total_tokens")
        with self.lock:
            self.tokens[FRESH] += usage.input_tokens - cached
            self.tokens[CACHED] += cached
            self.tokens[OUTPUT] += usage.output_tokens

    def answer(self, api, model, status=200, streamed=False):
        with self.lock:
            case = (api, model, status)
            self.answers[case] = self.answers.get(case, 0) + 1
            self.streams += streamed


THROUGH = Spent()  # through the gateway, where the client was told the usage
DIRECT = Spent()  # asked of the engine itself, for comparison
UNTOLD = {FRESH: 0, CACHED: 0, OUTPUT: 0}  # by the engine's counters, for streams that did not ask for their usage


def chat(messages=HELLO, model="tiny", spent=THROUGH, via=None, **arguments):
    answer = (via or client()).chat.completions.create(model=model, messages=messages, **arguments)
    spent.usage(answer.usage)
    spent.answer("chat_completions", model)
    return answer


def chat_stream(messages=HELLO, model="tiny", **arguments):
    """All chunks of a stream, with the time at which each came."""
    started = time.monotonic()
    before = engine_tokens()
    chunks = []
    with client().chat.completions.create(model=model, messages=messages, stream=True, **arguments) as stream:
        for chunk in stream:
            chunks.append((time.monotonic() - started, chunk))
    THROUGH.answer("chat_completions", model, streamed=True)
    settle(before, [chunk.usage for _, chunk in chunks if chunk.usage])
    return chunks


def settle(before, told):
    """Enters a finished stream into the books: what it told of its usage, else what the engine counted meanwhile."""
    for usage in told:
        THROUGH.usage(usage)
    if not told:
        after = engine_tokens()
        for kind in UNTOLD:
            UNTOLD[kind] += after[kind] - before[kind]


# --- looking at the servers -------------------------------------------------------------------------------------------


def fetch(base, path, body=None, headers=()):
    """One plain HTTP request: status, headers in lower case, body as text."""
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    try:
        payload = None if body is None else json.dumps(body)
        kind = {} if body is None else {"content-type": "application/json"}
        connection.request("GET" if body is None else "POST", url.path + path, payload, kind | dict(headers))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, response.read().decode()
    finally:
        connection.close()


SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def metrics(base):
    """Prometheus text as a list of (name, labels, value)."""
    status, _, text = fetch(base, "/metrics")
    equal(status, 200, "status of /metrics")
    found = (SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [(m[1], dict(LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]


def total(samples, name, **labels):
    """The sum over all series with this name and at least these labels."""
    wanted = labels.items()
    return sum(value for found, has, value in samples if found == name and wanted <= has.items())


def gateway_tokens(target="engine/tiny", **labels):
    samples = metrics(ADMIN_URL)
    counts = {kind: total(samples, "tollgate_tokens_total", target=target, kind=kind, **labels)
              for kind in (FRESH, CACHED, OUTPUT)}
    equal(total(samples, "tollgate_tokens_total", target=target, kind="reasoning", **labels), 0, "reasoning tokens")
    return counts


LEDGER_KINDS = {"input": FRESH, "cached": CACHED, "output": OUTPUT}  # the others are of what this engine does not do


def report_tokens():
    """The tokens of engine/tiny as `tollgate usage` reports them, beside the gateway that runs."""
    command = [os.environ["GATEWAY"], "usage", "--by", "target", "--format", "json"]
    said = subprocess.run(command, cwd=os.path.dirname(os.environ["LEDGER"]), capture_output=True, text=True, timeout=10)
    equal((said.returncode, said.stderr), (0, ""), "how `tollgate usage` ended")
    rows = [row for row in json.loads(said.stdout) if row["target"] == "engine/tiny"]
    equal(len(rows), 1, "rows for engine/tiny")
    return rows[0], {kind: rows[0][name] for name, kind in LEDGER_KINDS.items()}


def ledger(query, *values):
    """Rows of the ledger's file."""
    with contextlib.closing(sqlite3.connect(os.environ["LEDGER"])) as file:
        return file.execute(query, values).fetchall()


def ledger_tokens():
    sums = ", ".join(f"sum({name})" for name in LEDGER_KINDS)
    row, = ledger(f"SELECT {sums} FROM entry WHERE target = 'engine/tiny'")
    return dict(zip(LEDGER_KINDS.values(), row))


def engine_tokens():
    """The engine's own counters, in the gateway's terms."""
    samples = metrics(ENGINE_URL)
    return {FRESH: total(samples, "llamacpp:prompt_tokens_total"),
            CACHED: total(samples, "llamacpp:prompt_tokens_cached_total"),
            OUTPUT: total(samples, "llamacpp:tokens_predicted_total")}


def busy_slots():
    _, _, text = fetch(ENGINE_URL, "/slots")
    return [slot for slot in json.loads(text) if slot["is_processing"]]


def idle():
    equal(len(busy_slots()), 0, "busy slots of the engine")


def wait_for_idle():
    eventually("the engine", idle, 5, pause=1.2)  # slowly: see `leave_before_content`


# --- chat -------------------------------------------------------------------------------------------------------------


@check
def chat_answers():
    answer = chat(max_tokens=12)
    equal(answer.choices[0].finish_reason, "length", "finish_reason")
    equal(answer.usage.completion_tokens, 12, "completion_tokens")
    equal(answer.model, "tiny", "model")
    assert answer.choices[0].message.content.strip(), "no content"


@check
def chat_tells_cached_tokens():
    chat(max_tokens=1)
    again = chat(max_tokens=1).usage
    cached = again.prompt_tokens_details.cached_tokens
    assert 0 < cached < again.prompt_tokens, f"{cached} of {again.prompt_tokens} tokens from the cache"


@check
def chat_is_what_the_engine_says():
    def comparable(answer):
        members = answer.model_dump()
        for differing in ("id", "created", "timings", "usage"):
            members.pop(differing, None)
        return members

    arguments = {"max_tokens": 24, "temperature": 0, "seed": 7}
    engine = client(ENGINE_URL + "/v1", "none")
    equal(comparable(chat(**arguments)), comparable(chat(spent=DIRECT, via=engine, **arguments)), "answer")


@check
@gateway_only
def chat_carries_our_headers():
    answer = client().chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=2)
    THROUGH.usage(answer.parse().usage)
    THROUGH.answer("chat_completions", "tiny")
    assert answer.headers.get("x-request-id"), "no x-request-id"
    equal(answer.headers.get("x-tollgate-target"), "engine/tiny", "x-tollgate-target")
    assert answer.headers.get("server") != "llama.cpp", "the engine's `server` header came through"


@check
def chat_in_json_schema():
    schema = {"type": "object", "properties": {"verdict": {"type": "boolean"}}, "required": ["verdict"],
              "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    answer = chat(response_format=wanted, max_tokens=400)
    equal(answer.choices[0].finish_reason, "stop", "finish_reason")
    assert isinstance(json.loads(answer.choices[0].message.content)["verdict"], bool), "verdict is no boolean"


# The model's words are random: the bias makes it open a call at once and end its answer (token 2) as soon as the engine's
# grammar lets it, which is after one valid call.
TOOL = {
    "tools": [{"type": "function", "function": {
        "name": "open_gate", "description": "opens the gate",
        "parameters": {"type": "object", "properties": {"fast": {"type": "boolean"}}, "required": ["fast"],
                       "additionalProperties": False}}}],
    "tool_choice": "required", "parallel_tool_calls": False, "logit_bias": {"<tool_call>": 80, "2": 100}, "max_tokens": 400,
}


@check
def tool_call_and_its_result():
    choice = chat(**TOOL).choices[0]
    equal(choice.finish_reason, "tool_calls", "finish_reason")
    call = choice.message.tool_calls[0]
    equal(call.function.name, "open_gate", "function")
    assert isinstance(json.loads(call.function.arguments)["fast"], bool), "`fast` is no boolean"
    result = {"role": "tool", "tool_call_id": call.id, "content": "open"}
    chat(messages=HELLO + [choice.message.model_dump(exclude_none=True), result], max_tokens=4)


@check
def tool_call_streamed():
    deltas, reasons = [], []
    for _, chunk in chat_stream(**TOOL):
        for choice in chunk.choices:
            deltas += choice.delta.tool_calls or []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    equal(reasons, ["tool_calls"], "finish reasons")
    equal([delta.function.name for delta in deltas if delta.function.name], ["open_gate"], "function")
    assert len(deltas) > 3, f"the call came in only {len(deltas)} pieces"
    json.loads("".join(delta.function.arguments or "" for delta in deltas))


# --- streams ----------------------------------------------------------------------------------------------------------


def check_pieces(chunks, wanted_tokens):
    """An answer of so many tokens came piece by piece, and ended once and for a reason."""
    arrivals = [at for at, chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(arrivals) > wanted_tokens / 2, f"only {len(arrivals)} pieces for {wanted_tokens} tokens"
    assert arrivals[0] < arrivals[-1] * 0.5, f"first piece after {arrivals[0]:.3f} s, last after {arrivals[-1]:.3f} s"
    reasons = [chunk.choices[0].finish_reason for _, chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    equal(reasons, ["length"], "finish reasons")


@check
def stream_comes_in_pieces_without_usage():
    chunks = chat_stream(max_tokens=300)
    check_pieces(chunks, 300)
    equal([chunk.usage for _, chunk in chunks if chunk.usage], [], "usage that nobody asked for")
    equal(len([chunk for _, chunk in chunks if not chunk.choices]), 0, "chunks without choices")


@check
def stream_with_usage_tells_it_once():
    chunks = chat_stream(max_tokens=200, stream_options={"include_usage": True})
    check_pieces(chunks, 200)
    told = [chunk for _, chunk in chunks if chunk.usage]
    equal(len(told), 1, "chunks with usage")
    equal(told[0].choices, [], "choices of the usage chunk")
    equal(told[0].usage.completion_tokens, 200, "completion_tokens")


@check
def stream_on_the_wire():
    before = engine_tokens()
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 5, "stream": True}
    status, headers, text = fetch(GATEWAY_URL, "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
    equal(status, 200, "status")
    THROUGH.answer("chat_completions", "tiny", streamed=True)
    settle(before, [])
    equal(headers["content-type"].split(";")[0], "text/event-stream", "content-type")
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") for event in events), f"strange events in {events}"
    equal([event for event in events if "[DONE]" in event], ["data: [DONE]"], "end marks")
    equal(events[-1], "data: [DONE]", "last event")
    for event in events[:-1]:
        equal(json.loads(event[len("data: "):])["object"], "chat.completion.chunk", "object")


# --- legacy completions -----------------------------------------------------------------------------------------------


@check
def completion_answers():
    answer = client().completions.create(model="tiny", prompt="once upon a time", max_tokens=8)
    THROUGH.usage(answer.usage)
    THROUGH.answer("completions", "tiny")
    assert answer.choices[0].text.strip(), "no text"
    equal(answer.choices[0].finish_reason, "length", "finish_reason")


@check
def completion_streamed():
    """This engine puts the usage on the last chunk with a choice, asked or not; no end may be lost to bookkeeping."""
    for options in ({}, {"stream_options": {"include_usage": True}}):
        before = engine_tokens()
        arguments = {"model": "tiny", "prompt": "once upon a time", "max_tokens": 8, "stream": True, **options}
        with client().completions.create(**arguments) as stream:
            chunks = list(stream)
        THROUGH.answer("completions", "tiny", streamed=True)
        told = [chunk.usage for chunk in chunks if chunk.usage]
        settle(before, told)
        assert len(told) == 1 or not options, f"{len(told)} chunks with usage"
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
        equal(reasons, ["length"], "finish reasons")
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).strip(), "no text"


# --- responses --------------------------------------------------------------------------------------------------------


@check
def response_answers():
    response = client().responses.create(model="tiny", input="hello there", max_output_tokens=8)
    THROUGH.response_usage(response.usage)
    THROUGH.answer("responses", "tiny")
    equal((response.status, response.usage.output_tokens), ("completed", 8), "status and output_tokens")
    assert response.output_text.strip(), "no text"


@check
def response_streamed():
    """This engine says the usage in its last event, asked or not."""
    events = list(client().responses.create(model="tiny", input="hello there", max_output_tokens=50, stream=True))
    THROUGH.answer("responses", "tiny", streamed=True)
    equal((events[0].type, events[-1].type), ("response.created", "response.completed"), "first and last event")
    response = events[-1].response
    THROUGH.response_usage(response.usage)
    equal(response.usage.output_tokens, 50, "output_tokens")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    equal("".join(deltas), response.output_text, "text in pieces")
    assert len(deltas) > 25, f"only {len(deltas)} pieces for 50 tokens"


# --- embeddings -------------------------------------------------------------------------------------------------------


@check
def embeddings():
    def vectors(of, model):
        asked = {"model": model, "input": ["hello", "a gate"]}
        in_forms = [of.embeddings.create(**asked, encoding_format=form) for form in ("float", "base64")]
        return in_forms + [of.embeddings.create(**asked)]  # left alone, the client asks for base64 and decodes it

    embedder = client(EMBED_URL + "/v1", "none")
    before = gateway_tokens("embedder/tiny-embed") if ADMIN_URL else None
    answers = vectors(client() if ADMIN_URL else embedder, "vectors")
    numbers, encoded, decoded = answers
    equal([len(entry.embedding) for entry in numbers.data], [256, 256], "dimensions")
    assert isinstance(encoded.data[0].embedding, str), "base64 was asked for"
    expected = embedder.embeddings.create(model="vectors", input=["hello", "a gate"]).data
    for mine, theirs in zip(decoded.data, expected, strict=True):
        assert max(abs(a - b) for a, b in zip(mine.embedding, theirs.embedding, strict=True)) < 1e-4, "other vectors"
    for answer in answers:
        # To this model each character is a token, and each input begins with one more.
        equal(answer.usage.prompt_tokens, 1 + len("hello") + 1 + len("a gate"), "prompt_tokens")
    if ADMIN_URL:
        THROUGH.answers[("embeddings", "vectors", 200)] = len(answers)
        spent = sum(answer.usage.prompt_tokens for answer in answers)

        def counted():
            equal(gateway_tokens("embedder/tiny-embed")[FRESH] - before[FRESH], spent, "input tokens of the embedder")

        eventually("embeddings' tokens", counted, 2)


# --- names, keys, errors ----------------------------------------------------------------------------------------------


@check
def models_are_listed():
    assert "tiny" in [model.id for model in client().models.list()], "`tiny` is not listed"


@check
@gateway_only
def model_is_described():
    equal(client().models.retrieve("tiny").id, "tiny", "id")
    with refused(openai.NotFoundError, 404):
        client().models.retrieve("nothing-like-it")


@check
@gateway_only
def provider_and_model_as_a_name():
    answer = chat(model="engine/tiny", max_tokens=3)
    equal(answer.usage.completion_tokens, 3, "completion_tokens")


@check
def path_without_version():
    chat(via=client(base=GATEWAY_URL), max_tokens=3)


@check
@gateway_only
def wrong_key_is_refused():
    for key in ("sk-wrong", KEY + "x", KEY[:-1]):
        with refused(openai.AuthenticationError, 401) as caught:
            client(key=key).chat.completions.create(model="tiny", messages=HELLO)
        equal(caught.error.code, "invalid_api_key", "code")


@check
@gateway_only
def unknown_model_is_refused():
    with refused(openai.NotFoundError, 404) as caught:
        client().chat.completions.create(model="nothing-like-it", messages=HELLO)
    equal(caught.error.code, "model_not_found", "code")


@check
def context_overflow_in_the_engines_words():
    body = {"model": "tiny", "messages": [{"role": "user", "content": "abcd" * 5000}], "max_tokens": 4}
    for streamed in (False, True):
        status, _, text = fetch(ENGINE_URL, "/v1/chat/completions", body | {"stream": streamed})
        equal(status, 400, "the engine's own status")
        expected = json.loads(text)["error"]
        with refused(openai.BadRequestError, 400) as caught:
            client().chat.completions.create(**body, stream=streamed)
        THROUGH.answer("chat_completions", "tiny", status=400)
        equal(caught.error.type, "exceed_context_size_error", "type")
        equal(caught.error.body, expected, "error")


@check
def bad_field_in_the_engines_words():
    with refused(openai.BadRequestError, 400) as caught:
        client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=4,
                                         response_format={"type": "no such format"})
    THROUGH.answer("chat_completions", "tiny", status=400)
    assert "no such format" in caught.error.body["message"], f"another error: {caught.error.body}"


# --- together ---------------------------------------------------------------------------------------------------------


@check
def more_clients_than_slots():
    problems = []

    def one(number):
        try:
            answer = chat(messages=[{"role": "user", "content": f"hello number {number}"}], max_tokens=10 + number)
            equal(answer.usage.completion_tokens, 10 + number, "completion_tokens")
        except Exception as problem:
            problems.append(f"client {number}: {problem!r}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    equal(problems, [], "problems")


# --- the books: everything up to here ---------------------------------------------------------------------------------


@check
def engine_counted_what_it_told():
    """The ground of the next checks: an engine's usage figures and its counters are the same numbers."""
    told = {kind: THROUGH.tokens[kind] + DIRECT.tokens[kind] + UNTOLD[kind] for kind in UNTOLD}
    equal(engine_tokens(), told, "the engine's counters")
    assert min(told.values()) > 0, f"a kind of token never came up: {told}"
    if ADMIN_URL:
        assert UNTOLD[OUTPUT] > 0, "no stream without usage was among them"


@check
@gateway_only
def tokens_are_exactly_the_engines():
    def books():
        expected = {kind: THROUGH.tokens[kind] + UNTOLD[kind] for kind in UNTOLD}
        equal(gateway_tokens(), expected, "tokens of engine/tiny, over all models")

    eventually("tokens", books, 2)


@check
@gateway_only
def the_ledgers_tokens_are_exactly_the_engines():
    expected = {kind: THROUGH.tokens[kind] + UNTOLD[kind] for kind in UNTOLD}
    answers = sum(count for (api, model, status), count in THROUGH.answers.items()
                  if status == 200 and model in ("tiny", "engine/tiny"))

    def books():
        row, reported = report_tokens()
        equal(reported, expected, "tokens of engine/tiny, as `tollgate usage` reports them")
        equal((row["entries"], row["estimated"], row["unpriced"]), (answers, 0, 0), "entries, estimated, unpriced")
        equal(row["usd"], "0.00", "what an engine of one's own costs")
        equal(ledger_tokens(), expected, "tokens of engine/tiny in the ledger's file")
        ends = ledger('SELECT DISTINCT "end", estimated FROM entry WHERE target = ?', "engine/tiny")
        equal(ends, [("complete", 0)], "ends of entries")

    eventually("the ledger", books, 5)


@check
@gateway_only
def tokens_of_one_stream_that_asked_for_no_usage():
    before_gateway, before_engine, before_ledger = gateway_tokens(model="tiny"), engine_tokens(), ledger_tokens()
    chunks = chat_stream(messages=[{"role": "user", "content": "what does the road cost"}], max_tokens=17)
    equal([chunk.usage for _, chunk in chunks if chunk.usage], [], "usage that nobody asked for")
    spent = {kind: count - before_engine[kind] for kind, count in engine_tokens().items()}
    equal(spent[OUTPUT], 17, "the engine's output tokens")

    def counted():
        after = gateway_tokens(model="tiny")
        equal({kind: after[kind] - before_gateway[kind] for kind in after}, spent, "tokens of model tiny")
        entered = ledger_tokens()
        equal({kind: entered[kind] - before_ledger[kind] for kind in entered}, spent, "tokens in the ledger's file")

    eventually("tokens", counted, 2)


@check
@gateway_only
def requests_and_streams_are_counted():
    def books():
        samples = metrics(ADMIN_URL)
        for (api, model, status), count in sorted(THROUGH.answers.items()):
            if model == "engine/tiny":
                continue  # under which name a direct target is counted is not promised
            labels = {"api": api, "model": model, "key": "ann", "status": str(status)}
            equal(total(samples, "tollgate_requests_total", **labels), count, f"requests with {labels}")
        # OpenAI's client hangs up as soon as it has read [DONE], often before the end of the body: complete all the same.
        ended = total(samples, "tollgate_streams_total", target="engine/tiny", end="complete")
        equal(ended, THROUGH.streams, "streams that ended complete")
        everywhere = total(samples, "tollgate_streams_total", target="engine/tiny")
        equal(everywhere, THROUGH.streams, "streams, however they ended")

    eventually("counts", books, 2)


# --- one at a time ----------------------------------------------------------------------------------------------------

# `single` and `hasty` are the chat engine again, each as a target with `concurrency = 1`. The engine itself serves two at
# once, so that whatever keeps them apart is the gateway. In front of `single` one may wait for a minute, in front of
# `hasty` for a second. All answers are equally long, for which the engine needs some 150 ms; how long exactly is measured,
# and all else is judged by that.
LINED = Spent()  # what these checks were answered, in sum
WORKED = {"single": [], "hasty": []}  # when an answer ended, and for how many seconds the engine had worked on it


@functools.cache
def size():
    """How many tokens an answer of theirs has."""
    per_token = sorted(chat(max_tokens=200).timings["predicted_per_token_ms"] for _ in range(3))[1]
    return min(max(round(150 / per_token), 100), 3000)


@functools.cache
def client_of(name):
    return client(key=KEYS[name])


class Caller(threading.Thread):
    """One request of many at once, and what came of it when. Times are of `time.monotonic`."""

    def __init__(self, key, model="single", streamed=False, retries=0, longer=1):
        super().__init__(daemon=True)
        self.key, self.model, self.streamed, self.tokens = key, model, streamed, longer * size()
        self.via = client_of(key).with_options(max_retries=retries, timeout=90)
        self.asked = self.first = self.ended = None
        self.refusal = self.problem = None  # a 429; anything else that is not a complete answer
        self.worked = 0.0  # seconds of the engine's, for the prompt and for the answer
        self.spoke = 0.0  # for the answer alone
        self.retries = 0

    def run(self):
        self.asked = time.monotonic()
        try:
            self.read_stream() if self.streamed else self.read_answer()
        except openai.RateLimitError as refusal:
            self.refusal = refusal
            LINED.answer("chat_completions", self.model, status=429)
        except Exception as problem:
            self.problem = repr(problem)
        self.ended = time.monotonic()

    def body(self):
        words = f"hello from {self.key} {self.name}"
        return {"model": self.model, "messages": [{"role": "user", "content": words}], "max_tokens": self.tokens}

    def read_answer(self):
        raw = self.via.chat.completions.with_raw_response.create(**self.body())
        answer = raw.parse()
        self.retries = raw.retries_taken
        for _ in range(self.retries):
            LINED.answer("chat_completions", self.model, status=429)
        self.complete(answer.usage, [choice.finish_reason for choice in answer.choices], answer.timings)
        assert answer.choices[0].message.content.strip(), "no content"

    def read_stream(self):
        pieces, reasons, usage, timings = 0, [], None, None
        options = {"include_usage": True}
        with self.via.chat.completions.create(**self.body(), stream=True, stream_options=options) as stream:
            for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        self.first = self.first or time.monotonic()
                        pieces += 1
                    reasons += [choice.finish_reason] if choice.finish_reason else []
                usage = chunk.usage or usage
                timings = getattr(chunk, "timings", None) or timings
        assert pieces > self.tokens / 2, f"only {pieces} pieces"
        self.complete(usage, reasons, timings)

    def complete(self, usage, reasons, timings):
        equal((usage.completion_tokens, reasons), (self.tokens, ["length"]), "tokens and finish reasons")
        self.spoke = timings["predicted_ms"] / 1000
        self.worked = self.spoke + timings["prompt_ms"] / 1000
        WORKED[self.model].append((time.monotonic(), self.worked))
        LINED.usage(usage)
        LINED.answer("chat_completions", self.model, streamed=self.streamed)

    def interval(self):
        """When it was answered: from the first content to the end, or for as long as the engine says."""
        return self.first or self.ended - self.spoke, self.ended


def begin(callers):
    for caller in callers:
        caller.start()
    return callers


def finish(callers, all_served=True):
    """Waits until all have their answers; gives them in the order in which these ended."""
    for caller in callers:
        caller.join(timeout=90)
    problems = [f"{caller.name} of {caller.key}: {caller.problem or 'no answer at all'}"
                for caller in callers if caller.problem or caller.ended is None]
    equal(problems, [], "problems")
    if all_served:
        equal([caller.refusal for caller in callers if caller.refusal], [], "refusals")
    return sorted(callers, key=lambda caller: caller.ended)


def still_open(callers):
    return sum(caller.ended is None for caller in callers)


def slots(model="single"):
    """What the gateway tells of the model's only target."""
    status, _, text = fetch(ADMIN_URL, "/admin/explain", {"model": model, "key": "ann"})
    equal(status, 200, "status of /admin/explain")
    return json.loads(text)["models"][0]["targets"][0]["slots"]


def wait_for_line(least, model="single"):
    """Waits until so many wait there; tells what the gateway does."""
    def lined():
        told = slots(model)
        assert told["waiting"] >= least, f"only {told['waiting']} wait"
        return told

    return eventually("the line", lined, 5, pause=0.01)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


class Told:
    """A refusal with the wait that it tells, when so many answers had to end first, of which the last then did."""

    def __init__(self, at, told, ahead, free, model):
        self.told, self.true = told, free - at
        # A gateway cannot know that all will be faster from now on, or slower. What it can know is what was of late.
        self.usual = ahead * mean([worked for ended, worked in WORKED[model] if ended < at][-8:])

    def is_right(self):
        return min(self.true, self.usual) / 2 <= self.told <= max(self.true, self.usual) * 2

    def __str__(self):
        return f"told {self.told:.2f} s, in truth {self.true:.2f} s, as usual {self.usual:.2f} s"


def rightly_told(waits):
    """All of them must be; gives what there is to say of them."""
    equal([str(wait) for wait in waits if not wait.is_right()], [], "waits that are told wrongly")
    ratios = sorted(wait.told / wait.true for wait in waits)
    return f"first {waits[0]}; told / true {ratios[0]:.2f} to {ratios[-1]:.2f}"


@contextlib.contextmanager
def watched():
    """Looks at the engine's slots all the while: gives a list that has how many were busy, at each look."""
    seen, over = [], threading.Event()

    def look():
        while not over.wait(0.01):
            seen.append(len(busy_slots()))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join(timeout=30)


@check
def two_are_served_at_once_where_nothing_forbids_it():
    """The ground of the next check: an engine with two slots uses both, and whoever watches sees it."""
    wait_for_idle()
    with watched() as seen:
        threads = [threading.Thread(target=chat, kwargs={"max_tokens": 300}, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    equal(max(seen), 2, "busy slots at most")


@check
@gateway_only
def twenty_at_once_are_all_served_one_after_another():
    wait_for_idle()
    keys = ["ann"] * 8 + ["ben"] * 7 + ["eve"] * 5
    callers = [Caller(key, streamed=number % 2 == 0) for number, key in enumerate(keys)]
    began = time.monotonic()
    with watched() as seen:
        begin(callers)
        line = wait_for_line(least=10)
        served = finish(callers)
    took = time.monotonic() - began
    equal((line["under_way"], line["most"]), (1, 1), "under way, and how many may be")
    equal((max(seen), 1 in seen), (1, True), "busy slots at most, and whether one was")
    intervals = sorted(caller.interval() for caller in served)
    for (start, end), (next_start, next_end) in zip(intervals, intervals[1:]):
        overlap = min(end, next_end) - next_start
        shorter = min(end - start, next_end - next_start)
        assert overlap < shorter / 2, f"two answers overlap for {overlap:.3f} s, of which one took {shorter:.3f} s"
    # Two that share a time would count it twice; a slot that nobody has though many wait would be time that nobody counts.
    worked = sum(caller.worked for caller in served)
    assert took / 2 < worked < took, f"the engine worked for {worked:.2f} s of {took:.2f} s"
    print(f"     one answer {worked / 20:.3f} s, twenty {took:.2f} s, of which the engine worked {worked:.2f} s")


@check
@gateway_only
def one_request_is_not_behind_the_flood_of_another():
    flood = begin([Caller("ann", streamed=number % 2 == 0) for number in range(12)])
    told = wait_for_line(least=9)["wait_ms"] / 1000  # of somebody new
    late = Caller("ben", streamed=True)
    begin([late])
    finish(flood + [late])
    before = sum(late.asked < caller.ended <= late.ended for caller in flood)
    after = sum(caller.ended > late.ended for caller in flood)
    # The one under way and the first that waits go before it.
    assert before <= 3 and after >= 6, f"{before} of the flood were served before it, and {after} after it"
    waited = late.first - late.asked
    usual = 2 * mean([worked for ended, worked in WORKED["single"] if ended < late.asked][-8:])
    # Less by what is over already of the one under way, which is nothing or all.
    assert min(waited, usual) / 2 < told < 3 * max(waited, usual / 2), \
        f"it was told {told:.2f} s and waited {waited:.2f} s, where {usual:.2f} s are usual"
    print(f"     {before} before it, {after} after it; told {told:.2f} s, waited {waited:.2f} s")


@check
@gateway_only
def who_weighs_three_times_as_much_has_three_times_the_turns():
    first = begin([Caller("ann", longer=3)])
    eventually("the first", lambda: equal(slots()["under_way"], 1, "under way"), 5, pause=0.01)
    crowd = begin([Caller(key) for _ in range(6) for key in ("ben", "eve")])
    finish(first)
    order = [caller.key for caller in finish(crowd)]
    turns = order[:8].count("eve")  # three of four are hers: six
    assert turns >= 5 and "ben" in order[:6], f"served in this order: {order}"
    print(f"     {turns} of the first 8 turns: {' '.join(order)}")


def ask_in_vain(model, patience):
    """Asks as `ann` who has no time; gives when that was, how long the refusal took, and the wait that it tells."""
    body = {"model": model, "messages": HELLO, "max_tokens": size()}
    headers = {"authorization": f"Bearer {KEY}", "x-tollgate-timeout": f"{max(1, round(patience * 1000))}ms"}
    began = time.monotonic()
    status, headers, text = fetch(GATEWAY_URL, "/v1/chat/completions", body, headers)
    took = time.monotonic() - began
    equal((status, json.loads(text)["error"].get("code")), (429, "rate_limit_exceeded"), f"status and code of {text}")
    LINED.answer("chat_completions", model, status=429)
    return began, took, int(headers["retry-after-ms"]) / 1000


@check
@gateway_only
def whoever_has_less_time_is_refused_at_once_and_told_the_true_wait():
    """One that comes again and again while a line gets shorter: each time it is told when its turn would have been."""
    callers = begin([Caller("ann") for _ in range(10)])
    wait_for_line(least=8)
    refusals = []
    while still_open(callers) >= 4:
        ahead = still_open(callers)
        refusals.append((*ask_in_vain("single", patience=0.1), ahead))
        time.sleep(0.08)
    served = finish(callers)
    free = served[-1].ended  # of its own key's requests it is the last
    assert len(refusals) >= 4, f"only {len(refusals)} refusals"
    slowest = max(took for _, took, *_ in refusals)
    assert slowest < 0.5, f"a refusal took {slowest:.3f} s"
    said = rightly_told([Told(began, told, ahead, free, "single") for began, _, told, ahead in refusals])
    print(f"     {len(refusals)} refusals, the slowest after {slowest:.3f} s; {said}")


@check
@gateway_only
def beyond_a_second_nobody_waits_but_comes_back_as_told():
    for _ in range(4):  # what is told goes by what was
        finish(begin([Caller("ann", "hasty")]))
    callers = [Caller("ann", "hasty", streamed=number % 2 == 0) for number in range(20)]
    patient = [Caller("ann", "hasty", retries=4) for _ in range(3)]  # OpenAI's client waits as it is told
    begin(callers + patient)
    finish(callers, all_served=False)
    finish(patient)
    served = [caller for caller in callers + patient if not caller.refusal and not caller.retries]
    refused = [caller for caller in callers if caller.refusal]
    at_once = [caller for caller in refused if caller.ended - caller.asked < 0.5]
    # Whose turn comes later than it was expected to leaves when its second is over: few, unless all has become far slower.
    late = len(refused) - len(at_once)
    assert len(at_once) >= 5 and late <= len(served), \
        f"{len(served)} served, {len(at_once)} refused at once, {late} later"
    for caller in refused:
        equal(caller.refusal.code, "rate_limit_exceeded", "code")
        assert caller.ended - caller.asked < 2, f"refused after {caller.ended - caller.asked:.2f} s"
    free = max(caller.ended for caller in served)
    waits = []
    for caller in at_once:
        told = int(caller.refusal.response.headers["retry-after-ms"]) / 1000
        ahead = sum(other.ended > caller.ended for other in served)
        waits.append(Told(caller.ended, told, ahead, free, "hasty"))
    said = rightly_told(waits)
    retries = [caller.retries for caller in patient]
    assert 1 <= max(retries) <= 3, f"whoever came back did so {retries} times"
    slowest = max(caller.ended - caller.asked for caller in at_once)
    print(f"     {len(served)} served, {len(at_once)} refused at once (the slowest after {slowest:.3f} s), "
          f"{late} later; {said}; came back {retries} times")


@check
@gateway_only
def explain_tells_who_is_under_way_and_who_waits():
    callers = begin([Caller(key) for key in ("ann", "ann", "ann", "ann", "ann", "ben", "ben", "eve")])
    wait_for_line(least=5)
    most = still_open(callers)
    command = [os.environ["GATEWAY"], "explain", "--model", "single", "--key", "ann"]
    said = subprocess.run(command, cwd=os.path.dirname(os.environ["LEDGER"]), capture_output=True, text=True, timeout=10)
    least = still_open(callers)
    finish(callers)
    equal((said.returncode, said.stderr), (0, ""), "how `tollgate explain` ended")
    assert "one/tiny: would be waited for" in said.stdout, f"it said: {said.stdout}"
    told = re.search(r"(\d+) of (\d+) under way, (\d+) wait, one more would wait for (\d+) ms", said.stdout)
    assert told, f"it said: {said.stdout}"
    under_way, may, waiting, wait = map(int, told.groups())
    equal((under_way, may), (1, 1), "under way, and how many may be")
    # A client hears of its end a moment after the gateway.
    assert least - 3 <= waiting <= most - 1, f"{waiting} wait, where {least} to {most} have no answer yet"
    assert wait > 0, "no wait is told"
    print(f"     {told[0]}; {least} to {most} had no answer yet")


@check
@gateway_only
def whoever_waited_is_in_the_books_once_and_whoever_was_refused_is_not():
    targets = {"single": "one/tiny", "hasty": "other/tiny"}

    def books():
        counts = [gateway_tokens(target) for target in targets.values()]
        equal({kind: sum(count[kind] for count in counts) for kind in (FRESH, CACHED, OUTPUT)}, LINED.tokens, "tokens")
        samples = metrics(ADMIN_URL)
        for (api, model, status), count in sorted(LINED.answers.items()):
            labels = {"api": api, "model": model, "status": str(status)}
            equal(total(samples, "tollgate_requests_total", **labels), count, f"requests with {labels}")
            if status == 200:
                entries = ledger('SELECT count(*), sum(estimated) FROM entry WHERE target = ?', targets[model])
                equal(entries, [(count, 0)], f"entries of {model}")
        told = slots()
        equal((told["under_way"], told["waiting"]), (0, 0), "under way and waiting")

    eventually("counts", books, 5)


# --- clients that leave -----------------------------------------------------------------------------------------------


@check
def leaving_in_mid_stream_frees_the_slot():
    wait_for_idle()
    stream = client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=SLOW, stream=True)
    for _ in range(5):
        next(stream)
    equal(len(busy_slots()), 1, "busy slots while it streams")
    stream.close()
    eventually("the engine after its client left", idle, 1)


def leave_before_content(body):
    """Asks over a plain socket, hangs up before the engine has said a word, and expects that the engine stops.

    While it has nothing to write, this engine looks for a departed client once a second, and only when none of its
    requests had a result during that second, not even a look at its slots. So it is left alone meanwhile, and one second
    of what passes is its own. (It sends a stream's first chunk, with the role, before it has read the prompt.)"""
    wait_for_idle()
    url = urlsplit(GATEWAY_URL)
    payload = json.dumps(body).encode()
    head = [f"POST {url.path}/v1/chat/completions HTTP/1.1", f"host: {url.netloc}", f"authorization: Bearer {KEY}",
            "content-type: application/json", f"content-length: {len(payload)}"]
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall("\r\n".join(head + ["", ""]).encode() + payload)
        time.sleep(0.4)
        working = busy_slots()
        equal(len(working), 1, "busy slots while it works")
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            early = connection.recv(65536)
            assert b'"content":"' not in early, f"the answer had begun: {early!r}"
    time.sleep(1.8)
    equal(len(busy_slots()), 0, "busy slots after the client left")
    return working[0]


@check
def leaving_while_the_prompt_is_read():
    prompt = [{"role": "user", "content": "z" * SLOW}]
    slot = leave_before_content({"model": "tiny", "messages": prompt, "max_tokens": 4, "stream": True})
    equal(slot["next_token"][0]["n_decoded"], 0, "tokens said before it left")


@check
def leaving_before_an_unstreamed_answer():
    leave_before_content({"model": "tiny", "messages": HELLO, "max_tokens": SLOW})


@check
@gateway_only
def departures_are_counted():
    def books():
        samples = metrics(ADMIN_URL)
        assert total(samples, "tollgate_streams_total", target="engine/tiny", end="client_gone") >= 1, "none counted"
        equal(total(samples, "tollgate_streams_total", target="engine/tiny", end="complete"), THROUGH.streams,
              "streams that ended complete")
        equal(total(samples, "tollgate_in_flight"), 0, "requests in flight")
        gone = ledger("SELECT estimated FROM entry WHERE target = 'engine/tiny' AND \"end\" = 'client_gone'")
        equal(gone, [(1,)] * 3, "entries of clients that left: each once, as an estimate")

    eventually("counts", books, 2)


@check
def all_is_well_afterwards():
    equal(chat(max_tokens=3).usage.completion_tokens, 3, "completion_tokens")
    wait_for_idle()


@check
@gateway_only
def no_key_in_the_log():
    with open(os.environ["GATEWAY_LOG"], errors="replace") as log:
        written = log.read()
    for name, key in KEYS.items():
        assert key not in written, f"the gateway wrote {name}'s key into its log"


# --- an engine that dies ----------------------------------------------------------------------------------------------


@check
@gateway_only
def an_engine_killed_in_mid_stream_is_told_as_such():
    stream = client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=SLOW, stream=True)
    for _ in range(5):
        next(stream)
    os.kill(int(os.environ["ENGINE_PID"]), signal.SIGKILL)
    finishes = []
    try:
        for chunk in stream:
            finishes += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
    except openai.APIError as error:
        equal(error.code, "upstream_error", "code")
    else:
        raise AssertionError("the stream ended as if it were complete")
    equal(finishes, [], "finish reasons of an answer that was cut off")

    def books():
        samples = metrics(ADMIN_URL)
        equal(total(samples, "tollgate_streams_total", target="engine/tiny", end="truncated"), 1, "streams cut off")
        cut = ledger("SELECT estimated FROM entry WHERE target = 'engine/tiny' AND \"end\" = 'truncated'")
        equal(cut, [(1,)], "entries of what was cut off")

    eventually("counts", books, 2)


@check
@gateway_only
def a_dead_engine_is_left_alone():
    for _ in range(5):
        with refused(openai.APIStatusError, 502):
            chat()
    equal(total(metrics(ADMIN_URL), "tollgate_target_up", target="engine/tiny"), 0, "whether it is asked")


# --- running them -----------------------------------------------------------------------------------------------------


def main():
    faulthandler.dump_traceback_later(150, exit=True)  # nothing here may hang for long
    passed = failed = 0
    for one in CHECKS:
        if not ADMIN_URL and getattr(one, "gateway_only", False):
            print(f"skip {one.__name__}")
            continue
        started = time.monotonic()
        try:
            one()
        except Exception as problem:
            failed += 1
            print(f"FAIL {one.__name__}")
            if isinstance(problem, AssertionError):
                frame = [entry for entry in traceback.extract_tb(problem.__traceback__) if entry.name == one.__name__]
                print(f"     line {frame[-1].lineno}: {problem}" if frame else f"     {problem}")
            else:
                print("     " + traceback.format_exc().strip().replace("\n", "\n     "))
        else:
            passed += 1
            print(f"ok   {one.__name__} ({time.monotonic() - started:.2f} s)")
        sys.stdout.flush()
    summary = f"{passed} passed, {failed} failed"
    if "SUMMARY" in os.environ:
        with open(os.environ["SUMMARY"], "w") as file:
            file.write(summary + "\n")
    else:
        print(summary)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
