"""Phrases that several detectors look for in what people say."""

import re

_REFUSAL = re.compile(
    r"\bcannot\b|\bcan't\b|\bcan not\b|\bunable\b|\bnot able\b|\bunfortunately\b"
    r"|\bnot (?:possible|allowed|permitted|eligible)\b"
    r"|\bsorry\b|\bdoes not (?:allow|permit)\b|\bonly be\b",
    re.IGNORECASE,
)
_AGREEMENT = re.compile(
    r"\b(?:yes|yeah|yep|oui|confirm\w*|proceed|go ahead|correct|sure|sounds? (?:good|great)"
    r"|looks? (?:good|correct|perfect)"
    r"|okay|ok|that works|let's|please do|works for me|do it)\b",
    re.IGNORECASE,
)


def refusals(text: str) -> list[str]:
    """The lines and sentences of ``text`` that decline something, in lower case."""
    return [sentence.lower() for sentence in re.split(r"(?<=[.!?])\s|\n", text) if _REFUSAL.search(sentence)]


def refuses(text: str, about: str = "") -> bool:
    """True if a line or sentence of ``text`` declines something and names ``about``."""
    return any(about.lower() in sentence for sentence in refusals(text))


def agrees(text: str) -> bool:
    """True if the user gives a go-ahead."""
    return _AGREEMENT.search(text) is not None
