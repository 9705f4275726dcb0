"""Serves a model with two real llama.cpp HTTP servers on 127.0.0.1: one that chats, one that embeds.

Usage: serve_engine.py MODEL.gguf ADDRESSES.json

Both take a port that the system picks; once both have loaded the model, ADDRESSES.json appears with their addresses
(`{"chat": "http://127.0.0.1:…", "embed": "http://127.0.0.1:…"}`). A file, because the engine's threads write to both
output streams at once and would tear a line. It serves until it is ended by a signal, and logs to stderr.
"""

import json
import os
import signal
import sys
import threading

import xllamacpp

SLOTS = 2  # requests served at once
CONTEXT = 16384  # tokens for each slot
BATCH = 128  # prompt tokens computed at once; between two batches the engine notices that a client has left


def parameters(model, name):
    chosen = xllamacpp.CommonParams()
    chosen.model.path = model
    chosen.model_alias = {name}
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = 0
    chosen.n_parallel = SLOTS
    chosen.n_ctx = SLOTS * CONTEXT
    chosen.n_batch = chosen.n_ubatch = BATCH
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = 1
    chosen.endpoint_metrics = True
    chosen.endpoint_slots = True
    return chosen


def chat(model):
    return xllamacpp.Server(parameters(model, "tiny"))


def embed(model):
    chosen = parameters(model, "tiny-embed")
    chosen.n_ctx = SLOTS * BATCH  # an embedding's input must fit into one batch
    chosen.embedding = True
    chosen.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(chosen)


def main(model, addresses):
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    servers = {"chat": chat(model), "embed": embed(model)}
    unfinished = addresses + ".unfinished"
    with open(unfinished, "w") as file:
        json.dump({name: server.listening_address for name, server in servers.items()}, file)
    os.replace(unfinished, addresses)
    while not ended.wait(timeout=1.0):  # wakes up now and then, so that a signal is handled
        pass
    os._exit(0)  # without the servers' own farewell, which waits for requests under way


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
