"""Waiting for a real HTTP server that is first not there, then not ready, then ready."""

import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from clusters.wait import wait

ROOT = Path(__file__).parents[2]


class Late(BaseHTTPRequestHandler):
    """503 twice, then 200."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(200 if self.asked > 2 else 503)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_it_returns_when_the_server_is_ready():
    port = free_port()

    def serve():
        time.sleep(0.3)  # at first nothing listens
        with HTTPServer(("127.0.0.1", port), Late) as server:
            for _ in range(3):
                server.handle_request()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert wait(f"http://127.0.0.1:{port}/readiness", 20, pause=0.05)
    assert Late.asked == 3
    thread.join(10)


def test_it_gives_up_when_the_time_is_over():
    arguments = [f"--url=http://127.0.0.1:{free_port()}/", "--seconds=1"]
    command = [sys.executable, "-m", "clusters.wait", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1 and "no answer from http://127.0.0.1:" in result.stderr
    assert len(result.stderr.splitlines()) == 1
