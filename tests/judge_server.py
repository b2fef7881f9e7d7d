"""A loopback judge for tests: an OpenAI-compatible endpoint whose answers are scripted, and which keeps what it saw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server does with a request: its status, the reply's text or a raw body, headers, and a wait before."""

    text: str | None = "Good."
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0.0


@dataclass
class JudgeServer:
    """The server's address, the requests it saw (bodies and headers, with their time), and how it answers the next."""

    url: str = ""
    answer: Callable[[int, dict[str, Any]], Answer] = lambda number, body: Answer()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def texts(self) -> list[str]:
        """Return what was asked, the text of each request's last message."""
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer] | None = None) -> Iterator[JudgeServer]:
    """Serve on a free port of this machine until the block ends."""
    state = JudgeServer(answer=answer or (lambda number, body: Answer()))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.bodies.append(body)
                state.headers.append({name.lower(): value for name, value in self.headers.items()})
                state.times.append(time.monotonic())
                number = len(state.bodies) - 1
            found = state.answer(number, body)
            time.sleep(found.wait)
            try:
                self._send(found)
            except OSError:  # the client has given up
                self.close_connection = True

        def _send(self, found: Answer) -> None:
            message = {"role": "assistant", "content": found.text}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            error = {"error": {"message": found.text, "type": "error"}}
            content = found.body or json.dumps(reply if found.status == 200 else error).encode()
            self.send_response(found.status)
            for name, value in {"Content-Type": "application/json", **found.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
