"""Names and numbers of a report as text, on the page as in the terminal."""

import re


def label(name: str) -> str:
    """A method, adapter or capability as words."""
    return name.replace("_", " ") if name else "base"


def family(method: str) -> str:
    """``trace``, ``grpo`` or ``other``; it decides the colour of a method."""
    words = re.findall("[a-z]+", method.lower())
    return "trace" if "trace" in words or "routed" in words[:1] else "grpo" if "grpo" in words else "other"


def points(value: float) -> str:
    """A difference of pass rates in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def decoding(temperature: float) -> str:
    """The decoding method of a temperature, in words."""
    return "greedy" if temperature == 0 else f"T = {temperature:g}"


def duration(seconds: float) -> str:
    """``12.3 s``, ``4 min 05 s`` or ``2 h 10 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
