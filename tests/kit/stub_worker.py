"""A worker that serves nothing: it speaks with the parent as a real one does, and behaves as its script says.

Run as a program with its number as the only argument. The folder `STUB_FOLDER` holds `script-<number>`, one word for
each start:

`serve`   also when the script is over
`refuse`  ends before it serves
`late`    does not serve for long
`talk`    says other things before and after
`slow`    needs a second to end
`deaf`    takes no SIGTERM
`grudge`  ends with code 3

It writes its settings to `environ-<number>`, adds its process id to `pids-<number>` and the signals it gets to
`signals-<number>`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"# HELP up x\n# TYPE up gauge\nup {sys.argv[1]}\n".encode())

    def log_message(self, *args: object) -> None:
        pass


def _append(folder: Path, name: str, text: str) -> None:
    with (folder / f"{name}-{sys.argv[1]}").open("a") as file:
        file.write(f"{text}\n")


def _main() -> None:
    folder = Path(os.environ["STUB_FOLDER"])
    _append(folder, "pids", str(os.getpid()))
    told_by_parent = {name: value for name, value in os.environ.items() if name.startswith("POINTSMAN_")}
    (folder / f"environ-{sys.argv[1]}").write_text(json.dumps(told_by_parent))
    starts = len((folder / f"pids-{sys.argv[1]}").read_text().split())
    script = folder / f"script-{sys.argv[1]}"
    words = script.read_text().split() if script.exists() else []
    word = words[starts - 1] if starts <= len(words) else "serve"
    if word == "refuse":
        sys.exit(4)
    if word == "late":
        time.sleep(60)
    told = threading.Event()

    def on_signal(number: int, _: object) -> None:
        _append(folder, "signals", signal.Signals(number).name)
        if word != "deaf" or number == signal.SIGINT:
            told.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    site = HTTPServer(("127.0.0.1", 0), _Metrics)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    if word == "talk":
        print("a line that is none of the protocol\n[]", flush=True)
    print(json.dumps({"http_port": site.server_port}), flush=True)
    if word == "talk":
        print("x" * 200_000, flush=True)
    while not told.wait(0.01):
        pass
    if word == "slow":
        time.sleep(1.0)
    os._exit(3 if word == "grudge" else 0)


if __name__ == "__main__":
    _main()
