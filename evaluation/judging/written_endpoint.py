"""An OpenAI-compatible endpoint on the loopback whose answers were written by hand."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_CHARACTERS_PER_TOKEN = 4  # of the usage that it reports
Answering = Callable[[str, int, Sequence[dict[str, str]]], Any]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait: a client may have many requests in flight


@contextmanager
def written_endpoint(answer: Answering) -> Iterator[str]:
    """The endpoint's URL, while the block runs. ``answer(form, seed, messages)`` is the JSON value that it sends.

    A request without a form is refused: it follows an answer that did not fit its form.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "response_format" not in body:
                self.send_error(400, "the answer that was written does not fit its form")
                return
            messages = body["messages"]
            value = answer(body["response_format"]["json_schema"]["name"], body["seed"], messages)
            text = json.dumps(value, ensure_ascii=False)
            characters = sum(len(message["content"]) for message in messages)
            completion = {
                "id": "written",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
                ],
                "usage": {
                    "prompt_tokens": characters // _CHARACTERS_PER_TOKEN,
                    "completion_tokens": len(text) // _CHARACTERS_PER_TOKEN,
                },
            }
            data = json.dumps(completion).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the calls are on file."""

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
