"""Gives the gateway of run.sh something to count, three rounds of it: each thing that a panel or an alert speaks of happens in
every round, so that counters are seen to grow. Says what did not come as it should, and ends with 1 then.

    GATEWAY_URL=… python traffic.py
"""

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

URL = os.environ["GATEWAY_URL"]
KEYS = {name: f"sk-{name}-4f1c09d2b7a86e35" for name in ("ann", "slowed", "near", "poor")}
wrong = []


def ask(model, want, key="ann", path="/v1/chat/completions", leave=False, **more):
    """Asks, and wants one of these statuses."""
    body = {"model": model, "messages": [{"role": "user", "content": "count to five"}], "max_tokens": 20, **more}
    if path.endswith("rerank"):
        body = {"model": model, "query": "q", "documents": ["a", "b"]}
    headers = {"authorization": f"Bearer {KEYS.get(key, key)}", "content-type": "application/json"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status = answer.status
            answer.read(200 if leave else None)
    except urllib.error.HTTPError as error:
        status = error.code
        error.read()
    except OSError as error:
        status = repr(error)
    if status not in want:
        wrong.append(f"{model} for {key}: {status} and not {' or '.join(map(str, want))}")


def together(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def a_round():
    for _ in range(6):
        ask("fine", [200])
        ask("fine", [200], stream=True, stream_options={"include_usage": True})
    ask("echo/echo", [200])
    ask("second", [200])
    ask("estimated", [200])
    ask("unpriced", [200])
    ask("rank", [200], path="/v1/rerank")
    ask("near", [200], key="near")
    # Faults of providers.
    ask("broken", [500, 502, 503])
    ask("unreachable", [502, 503])
    ask("locked", [502, 503])
    ask("crowded", [429])
    ask("cut", [200], stream=True)
    ask("slow", [200], stream=True, leave=True)
    # Refused by the gateway.
    ask("nowhere", [404])
    ask("nobody", [503])
    ask("fine", [401], key="sk-nobody-4f1c09d2b7a86e35")
    ask("fine", [429], key="poor")
    for _ in range(4):
        ask("fine", [200, 429], key="slowed")
    # One is asked, one waits, the others find the line full.
    together(*[lambda: ask("held", [200, 429]) for _ in range(5)])
    # More than may be under way.
    together(*[lambda: ask("slow", [200, 503], stream=True, leave=True) for _ in range(12)])


for number in range(3):
    if number:
        time.sleep(2.5)
    a_round()
for line in sorted(set(wrong)):
    print(line)
sys.exit(bool(wrong))
