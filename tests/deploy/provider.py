"""A provider that the gateway of run.sh asks: what it does is the model's name. Writes its address to the file it is given."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45, "prompt_tokens_details": {"cached_tokens": 10}}
WORDS = ["one", " two", " three", " four", " five"]


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = asked["model"]
        if self.path.endswith("/rerank"):
            return self.answer(200, {"model": model, "results": [{"index": 0, "relevance_score": 0.9}]})
        if model == "broken":
            return self.answer(500, {"error": {"message": "it is broken", "type": "server_error"}})
        if model == "locked":
            return self.answer(401, {"error": {"message": "no such key", "type": "invalid_request_error"}})
        if model == "crowded":
            return self.answer(429, {"error": {"message": "later", "type": "rate_limit"}}, {"retry-after": "1"})
        if model == "held":
            time.sleep(0.5)
        if asked.get("stream"):
            return self.stream(model)
        message = {"role": "assistant", "content": "".join(WORDS)}
        self.answer(200, {
            "id": "c1", "object": "chat.completion", "created": 1, "model": model, "usage": USAGE,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        })

    def answer(self, status, body, headers=()):
        body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, model):
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        # One that waits for its client to leave goes on for ten seconds at most.
        words = WORDS * 10 if model == "slow" else WORDS
        try:
            for number, word in enumerate(words):
                if model == "cut" and number == 3:
                    return
                self.event(model, {"content": word}, None)
                time.sleep(0.2 if model == "slow" else 0.01)
            self.event(model, {}, "stop")
            self.event(model, None, None)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass

    def event(self, model, delta, reason):
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
        if delta is None:
            event["usage"] = USAGE
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
with open(sys.argv[1] + ".new", "w", encoding="utf-8") as file:
    file.write(f"http://127.0.0.1:{server.server_port}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
