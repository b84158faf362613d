"""Gives each request of the analyst and the designer the answer that was written for it; ``record.py`` serves them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.calendar_llm.answers import CAPABILITIES, EVIDENCE, LABELS, MODULES

_PAGE = re.compile(r"^(T\d+) \(([^)]*)\): ", re.MULTILINE)  # the first line of a page: label, and id of the episode


def answer(form: str, seed: int, messages: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The answer to a request, as the form wants it. All label runs get the same labels."""
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
