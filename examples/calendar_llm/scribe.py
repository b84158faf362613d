"""An OpenAI-compatible endpoint that gives the answers that were written by hand; ``record.py`` asks it."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from examples.calendar_llm.answers import CAPABILITIES, EVIDENCE, LABELS, MODULES

_PAGE = re.compile(r"^(T\d+) \(([^)]*)\): ", re.MULTILINE)  # the first line of a page: label, and id of the episode
_CHARACTERS_PER_TOKEN = 4


def answer(form: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The answer to a request of the analyst or the designer, as the form wants it."""
    text = messages[1]["content"]
    pages = dict(_PAGE.findall(text))
    if form == "Proposals":
        return {"capabilities": [_proposal(name, pages) for name in CAPABILITIES]}
    if form == "Dictionary":
        return {"capabilities": [_merged(name, text) for name in CAPABILITIES]}
    if form == "Labels":
        return {"episodes": [{"episode": label, "labels": _labels(key)} for label, key in pages.items()]}
    if form == "WrittenModule":
        (name,) = re.findall(r"^# The capability: (\w+)$", text, re.MULTILINE)
        module, more = MODULES[name]
        return more | {"module": (Path(__file__).parent / module).read_text()}
    raise ValueError(f"no answer was written for the form {form!r}")


def _proposal(name: str, pages: dict[str, str]) -> dict[str, Any]:
    of = {key: label for label, key in pages.items()}
    quotes = [quote for quote in EVIDENCE[name] if quote[0] in of][:4]
    evidence = [{"episode": of[key], "message": message, "quote": quote} for key, message, quote in quotes]
    return {"name": name, "description": CAPABILITIES[name], "evidence": evidence}


def _merged(name: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": CAPABILITIES[name],
        "sources": re.findall(rf"^(A\d+): {name}$", text, re.MULTILINE),
    }


def _labels(key: str) -> list[dict[str, str]]:
    names = {"N": "NA", "P": "PRESENT", "L": "LACKING"}
    found = [
        {"capability": name, "label": names[letter], "evidence": ""}
        for name, letter in zip(CAPABILITIES, LABELS[key], strict=True)
    ]
    return found + [
        {"capability": name, "label": "PRESENT", "evidence": ""} for name in ("polite_tone", "concise_replies")
    ]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "response_format" not in asked:  # a second try after an answer that was refused
            self.send_error(400, "the answer that was written is wrong: mend examples/calendar_llm/answers.py")
            return
        text = json.dumps(answer(asked["response_format"]["json_schema"]["name"], asked["messages"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        read = sum(len(message["content"]) for message in asked["messages"])
        usage = {
            "prompt_tokens": read // _CHARACTERS_PER_TOKEN,
            "completion_tokens": len(text) // _CHARACTERS_PER_TOKEN,
        }
        whole = {"id": "written", "object": "chat.completion", "created": 0, "model": asked["model"]}
        body = json.dumps(whole | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed of a request."""


def server(port: int) -> ThreadingHTTPServer:
    """A server on this machine; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), _Handler)
