"""A provider that answers in the shapes of OpenAI's, for the client test.

    shapes.py FILE       serves, and writes its address into FILE
    shapes.py --models   the [models] of a gateway in front of it, with its prices

What it answers follows from what it is asked: tools are called, a JSON schema is filled in, sound and pictures that were
uploaded are named by their SHA-256, so that whoever uploaded them can tell that every byte came. Forms are read by
python-multipart, which most servers in Python use. Beside that:

    GET /billed      for each model what was used, and what it costs in billionths of a dollar: each answer rounded up
    GET /complaints  what was wrong with what came
"""

import base64
import hashlib
import io
import itertools
import json
import os
import struct
import sys
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil

from python_multipart import parse_form

KEY = "sk-provider-5d41402abc4b2a76"

# What a model is for; what it costs, in dollars as in a gateway's configuration; what else its target says. Some prices are
# no whole billionths, so that it shows where what is rounded.
MODELS = {
    "talk": ("chat", {"input": "0.0375", "cached": "0.00375", "output": "0.1255"}, "context = 100000"),
    "vector": ("embedding", {"input": "0.0205", "output": "0"}, ""),
    "speak": ("speech", {"characters": "15"}, ""),
    "speak-by-token": ("speech", {"input": "0.6", "output": "12.0005"}, "context = 2000, max_output = 2000"),
    "hear": ("transcription", {"seconds": "0.0001"}, ""),
    "hear-by-token": ("transcription", {"input": "1.25", "output": "5.0005"}, "context = 16000, max_output = 2000"),
    "draw": ("image", {"images": "0.04"}, ""),
    "draw-by-token": ("image", {"input": "5", "output": "40.0005"}, "context = 4000, max_output = 4000"),
    "judge": ("moderation", {"input": "0", "output": "0"}, ""),
    "sort": ("rerank", {"searches": "0.002"}, ""),
}
PER_MILLION = {"input", "cached", "output", "characters"}

WORDS = ["Grüße", ", ", "wor", "ld", " 🌍", "."]
FACTS = '{"city":"Oslo","degrees":7}'
CALLS = [("call_a", "weather", '{"city":"Oslo"}'), ("call_b", "weather", '{"city":"Bern"}')]
AFTER_TOOLS = "It is 7 degrees."
HEARD = "Heard "
SOUND = bytes(range(256)) * 40
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
SOUNDS = {"mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
          "pcm": "audio/pcm"}
CATEGORIES = ["harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
              "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"]


def configuration():
    """The models, each under the name that it has here: so a request is as long as the one that comes here."""
    for name, (kind, price, more) in MODELS.items():
        rates = ", ".join(f"{rate} = {dollars}" for rate, dollars in price.items())
        more = more and ", " + more
        print(f'[models.{name}]\nkind = "{kind}"\ntargets = [{{ to = "shapes/{name}", price = {{ {rates} }}{more} }}]\n')


# --- the books --------------------------------------------------------------------------------------------------------

LOCK = threading.Lock()
BILLED = {}
COMPLAINTS = []


def bill(model, guess=False, **used):
    """One answer, which does not tell what was used if that is a guess."""
    price = MODELS[model][1]
    cost = sum(Fraction(price.get(rate, "0")) * count / (10**6 if rate in PER_MILLION else 1) for rate, count in used.items())
    with LOCK:
        books = BILLED.setdefault(model, {"answers": 0, "guesses": 0, "cost": 0, "used": {}})
        books["answers"] += 1
        books["guesses"] += guess
        books["cost"] += ceil(cost * 10**9)
        for rate, count in used.items():
            books["used"][rate] = books["used"].get(rate, 0) + count


def complain(what):
    with LOCK:
        COMPLAINTS.append(what)


class Wrong(Exception):
    """The request is refused, with 400."""

    def __init__(self, message, param, code):
        super().__init__(message)
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


# --- chats ------------------------------------------------------------------------------------------------------------


def chat_usage(given, cached, said, thought):
    return {
        "prompt_tokens": given,
        "completion_tokens": said,
        "total_tokens": given + said,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                      "rejected_prediction_tokens": 0},
    }


# Of what was asked: input, of that cached, output, of that reasoning.
USED = {"words": (20, 8, 9, 3), "facts": (33, 0, 11, 0), "calls": (60, 32, 18, 0), "after": (71, 64, 6, 0)}


def wanted(body, answered, form):
    """Which kind of answer the request is for."""
    if answered:
        return "after"
    if body.get("tools"):
        return "calls"
    return "facts" if form == "json_schema" else "words"


def said(want):
    return {"words": WORDS, "facts": [FACTS[:9], FACTS[9:]], "after": [AFTER_TOOLS], "calls": []}[want]


def chat(handler, model, body):
    temperature = body.get("temperature")
    if temperature is not None and temperature > 2:
        raise Wrong(f"Invalid 'temperature': {temperature} is more than 2.", "temperature", "decimal_above_max_value")
    messages = body["messages"]
    want = wanted(body, messages[-1]["role"] == "tool", (body.get("response_format") or {}).get("type"))
    given, cached, output, thought = USED[want]
    usage = chat_usage(given, cached, output, thought)
    bill(model, input=given - cached, cached=cached, output=output)
    finish = "tool_calls" if want == "calls" else "stop"
    about = {"id": "chatcmpl-1", "created": 1771000000, "model": model, "service_tier": "default", "system_fingerprint": "fp_1"}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(said(want)) or None, "refusal": None, "annotations": []}
        if want == "calls":
            calls = [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                     for id, name, arguments in CALLS]
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return handler.json({**about, "object": "chat.completion", "choices": [choice], "usage": usage})

    def chunk(delta=None, finish=None, usage=None):
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return {**about, "object": "chat.completion.chunk", "choices": choices, "usage": usage, "obfuscation": "aZ3"}

    def events():
        yield chunk({"role": "assistant", "content": None if want == "calls" else "", "refusal": None})
        for text in said(want):
            yield chunk({"content": text})
        for index, (id, name, arguments) in enumerate(CALLS if want == "calls" else []):
            function = {"name": name, "arguments": ""}
            yield chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
            for part in (arguments[:5], arguments[5:]):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        yield chunk({}, finish)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield chunk(usage=usage)
        else:
            complain("a stream whose usage nobody asked for")

    return handler.events(events(), done=True)


# --- responses --------------------------------------------------------------------------------------------------------


# Those that are kept, by their ids, and the numbers of those to come.
KEPT, NUMBERS = {}, itertools.count()


def responses(handler, model, body):
    given = body["input"]
    previous = body.get("previous_response_id")
    if previous is not None and previous not in KEPT:
        raise Wrong(f"Previous response with id '{previous}' not found.", "previous_response_id", "previous_response_not_found")
    id = f"resp_{next(NUMBERS)}"
    answered = isinstance(given, list) and given[-1].get("type") == "function_call_output"
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    want = wanted(body, answered, form["type"])
    tokens, cached, output, thought = USED[want]
    bill(model, input=tokens - cached, cached=cached, output=output)
    usage = {"input_tokens": tokens, "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
             "output_tokens": output, "output_tokens_details": {"reasoning_tokens": thought}, "total_tokens": tokens + output}

    def response(status, items, usage):
        return {
            "id": id, "object": "response", "created_at": 1771000000, "status": status, "background": False,
            "error": None, "incomplete_details": None, "instructions": body.get("instructions"), "max_output_tokens": None,
            "max_tool_calls": None, "model": model, "output": items, "parallel_tool_calls": True,
            "previous_response_id": previous, "reasoning": {"effort": None, "summary": None}, "service_tier": "default",
            "store": body.get("store", True), "temperature": 1.0, "text": {"format": form, "verbosity": "medium"}, "tool_choice": "auto",
            "tools": body.get("tools") or [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": usage,
            "user": None, "metadata": {},
        }

    def part(text):
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    text = "".join(said(want))
    if want == "calls":
        items = [{"id": f"fc_{n}", "type": "function_call", "status": "completed", "call_id": id, "name": name,
                  "arguments": arguments} for n, (id, name, arguments) in enumerate(CALLS)]
    else:
        items = [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part(text)]}]
    KEPT[id] = response("completed", items, usage)
    if not body.get("stream"):
        return handler.json(KEPT[id])

    def events():
        yield "response.created", {"response": response("in_progress", [], None)}
        yield "response.in_progress", {"response": response("in_progress", [], None)}
        for index, item in enumerate(items):
            at = {"item_id": item["id"], "output_index": index}
            if want == "calls":
                yield "response.output_item.added", {
                    "output_index": index, "item": {**item, "status": "in_progress", "arguments": ""}}
                for piece in (item["arguments"][:5], item["arguments"][5:]):
                    yield "response.function_call_arguments.delta", {**at, "delta": piece}
                yield "response.function_call_arguments.done", {**at, "name": item["name"], "arguments": item["arguments"]}
            else:
                at["content_index"] = 0
                yield "response.output_item.added", {
                    "output_index": index, "item": {**item, "status": "in_progress", "content": []}}
                yield "response.content_part.added", {**at, "part": part("")}
                for piece in said(want):
                    yield "response.output_text.delta", {**at, "delta": piece, "logprobs": [], "obfuscation": "k"}
                yield "response.output_text.done", {**at, "text": text, "logprobs": []}
                yield "response.content_part.done", {**at, "part": part(text)}
            yield "response.output_item.done", {"output_index": index, "item": item}
        yield "response.completed", {"response": response("completed", items, usage)}

    return handler.events({"type": type, "sequence_number": n, **event} for n, (type, event) in enumerate(events()))


# --- what else there is -----------------------------------------------------------------------------------------------


def embeddings(handler, model, body):
    given = body["input"]
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    vectors = [[1.0, -2.0, float(index)] for index in range(len(inputs))]
    bill(model, input=4 * len(inputs))
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<3f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 4 * len(inputs), "total_tokens": 4 * len(inputs)}
    handler.json({"object": "list", "data": data, "model": model, "usage": usage})


def speech(handler, model, body):
    usage = {"input_tokens": 3, "output_tokens": 24, "total_tokens": 27}
    bill(model, **({"input": 3, "output": 24} if model == "speak-by-token" else {"characters": len(body["input"])}))
    if body.get("stream_format") == "sse":
        deltas = [{"type": "speech.audio.delta", "audio": base64.b64encode(SOUND[at:at + 3000]).decode()}
                  for at in range(0, len(SOUND), 3000)]
        return handler.events(deltas + [{"type": "speech.audio.done", "usage": usage}], named=False)
    pieces = (SOUND[at:at + 1500] for at in range(0, len(SOUND), 1500))
    return handler.pieces(SOUNDS[body.get("response_format") or "mp3"], pieces)


def transcription(handler, model, form):
    (file,) = form.files["file"]
    text = HEARD + file
    wish = form.get("response_format") or "json"
    by_token = model == "hear-by-token"
    usage = {"type": "duration", "seconds": 9}
    # What is plain text tells no length, nor does a translation that is nothing but its text: a second is billed for each
    # 4,000 bytes of the body, as the gateway guesses. Where there is a duration, that is billed.
    translated = handler.path.endswith("translations")
    untold = wish not in ("json", "verbose_json") or wish == "json" and translated
    if by_token:
        usage = {"type": "tokens", "total_tokens": 45, "input_tokens": 14,
                 "input_token_details": {"text_tokens": 0, "audio_tokens": 14}, "output_tokens": 31}
        bill(model, input=14, output=31)
    else:
        bill(model, guess=untold, seconds=ceil(form.length / 4000) if untold else 9)
    if form.get("stream") == "true":
        deltas = [{"type": "transcript.text.delta", "delta": delta} for delta in (HEARD, file)]
        return handler.events(deltas + [{"type": "transcript.text.done", "text": text, "usage": usage}], named=False)
    if wish == "verbose_json":
        words = [{"word": "Heard", "start": 0.0, "end": 0.4}]
        segments = [{"id": 0, "seek": 0, "start": 0.0, "end": 3.3, "text": text, "tokens": [50364, 440], "temperature": 0.0,
                     "avg_logprob": -0.28, "compression_ratio": 1.23, "no_speech_prob": 0.009}]
        asked = form.fields.get("timestamp_granularities[]", ["segment"])
        body = {"task": "transcribe", "language": "german", "duration": 8.47, "text": text,
                **({"words": words} if "word" in asked else {}), **({"segments": segments} if "segment" in asked else {})}
        return handler.json(body if translated else {**body, "usage": usage})
    if wish != "json":
        cue = {"text": "", "srt": "1\n00:00:00,000 --> 00:00:03,300\n",
               "vtt": "WEBVTT\n\n00:00.000 --> 00:03.300\n"}[wish]
        return handler.whole("text/plain; charset=utf-8", f"{cue}{text}\n".encode())
    return handler.json({"text": text} if untold else {"text": text, "usage": usage})


def images(handler, model, body, of=()):
    count = int(body.get("n") or 1)
    usage = {"input_tokens": 10, "input_tokens_details": {"image_tokens": 0, "text_tokens": 10}, "output_tokens": 272 * count,
             "output_tokens_details": {"image_tokens": 272 * count, "text_tokens": 0}, "total_tokens": 10 + 272 * count}
    by_token = model == "draw-by-token"
    bill(model, **({"input": 10, "output": 272 * count} if by_token else {"images": count}))
    picture = base64.b64encode(PICTURE).decode()
    looks = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
    if body.get("stream") in (True, "true"):
        at = {"created_at": 1771000000, **looks}
        name = "image_edit" if of else "image_generation"
        return handler.events([
            {"type": f"{name}.partial_image", "b64_json": picture[:12], "partial_image_index": 0, **at},
            {"type": f"{name}.completed", "b64_json": picture, **at, "usage": usage},
        ])
    data = {"b64_json": picture, "revised_prompt": " ".join([body["prompt"], *of])}
    told = {**looks, "usage": usage} if by_token else {}
    return handler.json({"created": 1771000000, "data": [data] * count, **told})


def edits(handler, model, form):
    files = [file for name in ("image", "image[]", "mask") for file in form.files.get(name, [])]
    return images(handler, model, {name: form.get(name) for name in form.fields}, files)


def moderations(handler, model, body):
    bill(model, guess=True)
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]

    def result(text):
        flagged = "threat" in str(text)
        scores = {name: 0.98 if flagged and name == "violence" else 0.0001 for name in CATEGORIES}
        return {"flagged": flagged, "categories": {name: score > 0.5 for name, score in scores.items()},
                "category_scores": scores, "category_applied_input_types": {name: ["text"] for name in CATEGORIES}}

    handler.json({"id": "modr-1", "model": model, "results": [result(text) for text in given]})


def rerank(handler, model, body):
    bill(model, searches=1)
    # The longer ones first.
    places = sorted(range(len(body["documents"])), key=lambda place: -len(str(body["documents"][place])))
    results = [{"index": place, "relevance_score": 0.9 / (n + 1)} for n, place in enumerate(places[:body.get("top_n")])]
    handler.json({"id": "rerank-1", "results": results, "meta": {"billed_units": {"search_units": 1}}})


JSON = {"/chat/completions": chat, "/responses": responses, "/embeddings": embeddings, "/audio/speech": speech,
        "/images/generations": images, "/moderations": moderations, "/rerank": rerank}
FORMS = {"/audio/transcriptions": transcription, "/audio/translations": transcription, "/images/edits": edits}


# --- the server -------------------------------------------------------------------------------------------------------


class Form:
    """Form data as python-multipart reads it: fields by name, and the SHA-256 of each file."""

    def __init__(self, headers, payload):
        self.length = len(payload)
        self.fields, self.files = {}, {}
        parse_form(headers, io.BytesIO(payload), self.field, self.file)

    def field(self, field):
        self.fields.setdefault(field.field_name.decode(), []).append(field.value.decode())

    def file(self, file):
        file.file_object.seek(0)
        digest = hashlib.sha256(file.file_object.read()).hexdigest()
        self.files.setdefault(file.field_name.decode(), []).append(digest)

    def get(self, name):
        return self.fields.get(name, [None])[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_):
        pass

    def whole(self, type, payload, status=200):
        self.send_response(status)
        self.send_header("content-type", type)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def json(self, body, status=200):
        self.whole("application/json", json.dumps(body, ensure_ascii=False).encode(), status)

    def pieces(self, type, pieces):
        """In chunks, each sent as it comes."""
        self.send_response(200)
        self.send_header("content-type", type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def events(self, events, done=False, named=True):
        def written():
            for event in events:
                name = f"event: {event['type']}\n" if named and "type" in event else ""
                yield f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            if done:
                yield b"data: [DONE]\n\n"

        self.pieces("text/event-stream; charset=utf-8", written())

    def kept(self):
        id, _, rest = self.path.removeprefix("/v1/responses/").partition("/")
        return id, rest, KEPT.get(id)

    def do_DELETE(self):
        id, _, response = self.kept()
        KEPT.pop(id, None)
        if response is None:
            return self.json({"error": {"message": f"Response with id '{id}' not found.", "type": "invalid_request_error",
                                        "param": None, "code": None}}, 404)
        self.json({"id": id, "object": "response", "deleted": True})

    def do_GET(self):
        id, rest, response = self.kept()
        if response is not None:
            items = [{"id": "msg_0", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
            items = {"object": "list", "data": items, "first_id": "msg_0", "last_id": "msg_0", "has_more": False}
            return self.json(items if rest == "input_items" else response)
        with LOCK:
            books = {"/billed": BILLED, "/complaints": COMPLAINTS}.get(self.path)
            self.json(books if books is not None else {"error": "nothing here"}, 200 if books is not None else 404)

    def do_POST(self):
        payload = self.rfile.read(int(self.headers["content-length"]))
        path = self.path.removeprefix("/v1")
        try:
            if self.headers["authorization"] != f"Bearer {KEY}":
                complain(f"{path}: another key than the provider's: {self.headers['authorization']}")
            if path in JSON:
                body = json.loads(payload)
                self.checked(path, body.get("model"))
                JSON[path](self, body["model"], body)
            else:
                form = Form({"Content-Type": self.headers["content-type"]}, payload)
                self.checked(path, form.get("model"))
                FORMS[path](self, form.get("model"), form)
        except Wrong as wrong:
            self.json(wrong.body, 400)
        except OSError:
            self.close_connection = True  # whoever asked has left
        except Exception as problem:
            complain(f"{path}: {problem!r}: {payload[:300]!r}")
            self.json({"error": {"message": repr(problem), "type": "server_error", "param": None, "code": None}}, 500)

    def checked(self, path, model):
        kinds = {"/embeddings": "embedding", "/audio/speech": "speech", "/audio/transcriptions": "transcription",
                 "/audio/translations": "transcription", "/images/generations": "image", "/images/edits": "image",
                 "/moderations": "moderation", "/rerank": "rerank"}
        if MODELS[model][0] != kinds.get(path, "chat"):
            complain(f"{path} was asked for {model}")


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    if sys.argv[1] == "--models":
        configuration()
        sys.exit()
    with Server(("127.0.0.1", 0), Handler) as server:
        # Whole or not at all: somebody waits for this file.
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(f"http://127.0.0.1:{server.server_port}")
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        server.serve_forever()
