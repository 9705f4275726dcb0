"""A provider that does as it is told, for the client test: `provider.py FILE` writes its address into FILE.

It answers chat completions. What it answers to a model is set beforehand, act by act; afterwards it answers 200:

    POST /script/MODEL    a JSON list of acts, done once each, in this order; what was set before is forgotten:
                            {"status": 429, "headers": {"retry-after": "1"}}    answers so
                            {"hold": true}                                      answers 200 once it is released
    POST /release/MODEL   lets go what is held
    GET  /asked/MODEL     how often it was asked since its script was set
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOLD = 30  # seconds: nothing is held for longer, so that this program can always be ended
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Model:
    def __init__(self, acts=()):
        self.acts = list(acts)
        self.asked = 0
        self.released = threading.Event()


MODELS = {}
LOCK = threading.Lock()


def model(name):
    return MODELS.setdefault(name, Model())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        payload = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def do_GET(self):
        with LOCK:
            asked = model(self.path.removeprefix("/asked/")).asked
        self.answer(200, asked)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        _, what, name = self.path.split("/", 2)
        if what == "script":
            with LOCK:
                MODELS[name] = Model(json.loads(body))
            self.answer(200, "set")
        elif what == "release":
            with LOCK:
                model(name).released.set()
            self.answer(200, "released")
        else:
            self.complete(json.loads(body)["model"])

    def complete(self, name):
        with LOCK:
            asked = model(name)
            asked.asked += 1
            act = asked.acts.pop(0) if asked.acts else {}
        if act.get("hold"):
            asked.released.wait(HOLD)
        status = act.get("status", 200)
        error = {"error": {"message": "as it was told to", "type": "scripted", "code": None, "param": None}}
        try:
            self.answer(status, ANSWER if status == 200 else error, act.get("headers", {}))
        except OSError:
            self.close_connection = True  # whoever asked has left


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        # Whole or not at all: somebody waits for this file.
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(f"http://127.0.0.1:{server.server_port}")
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        server.serve_forever()
