"""An OpenAI-compatible endpoint on the loopback that answers from a reader's judgements."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from evaluation.judging.recorded import Reader


@contextmanager
def reader_endpoint(reader: Reader, model: str) -> Iterator[str]:
    """The endpoint's URL, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = body["response_format"]["json_schema"]["name"]
            said = reader.answer(form, body["seed"], body["messages"][-1]["content"])
            message = {"role": "assistant", "content": json.dumps(said, ensure_ascii=False)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self._send({"id": "-", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]})

        def _send(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the calls are on file."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
