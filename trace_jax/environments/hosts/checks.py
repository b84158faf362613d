"""Calls of an environment, whose faults break one episode and nothing else: each result is checked."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from reprlib import repr as shortened
from typing import Any, TypeVar, get_args

from trace_jax.chat.calls import read_object, text_of
from trace_jax.chat.codec import RenderError
from trace_jax.contract.record import Part
from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.hosts.deadline import DeadlineExceeded, deadline
from trace_jax.environments.protocol import Hinting, Observation, Outcome

_FIELDS = frozenset(Message.model_fields)
_ROLES = frozenset(get_args(Message.model_fields["role"].annotation))
P = TypeVar("P", bound=Part)
T = TypeVar("T")


class EnvironmentFault(Exception):
    """The environment broke its protocol: it raised, returned what a file cannot hold, or graded outside [0, 1].

    ``extra`` is what a worker told of the episode with its error, unchecked; None if nothing.
    """

    def __init__(self, text: str, extra: Any = None) -> None:
        super().__init__(text)
        self.extra = extra


def call(seconds: float, function: Callable[[], T]) -> T:
    """The result of ``function``, which calls the environment and may check its result.

    Raises DeadlineExceeded after ``seconds``, and EnvironmentFault for any other error, SystemExit included.
    """
    try:
        with deadline(seconds):
            return function()
    except (DeadlineExceeded, EnvironmentFault):
        raise
    except (Exception, SystemExit) as error:  # an environment may raise anything; it breaks this episode only
        raise EnvironmentFault(one_line(error)) from error


def checked_observation(value: Any) -> Observation:
    """``value`` if it is an Observation of messages that a file can hold. Raises EnvironmentFault."""
    if not isinstance(value, Observation):
        raise EnvironmentFault(f"expected an Observation of Messages, got {str(value)[:80]!r}")
    return Observation(checked_parts(value.messages, Message), bool(value.done))


def checked_parts(parts: Any, kind: type[P]) -> tuple[P, ...]:
    """``parts`` if each is a ``kind`` that is read back equal from a file. Raises EnvironmentFault."""
    if not isinstance(parts, Iterable):
        raise EnvironmentFault(f"expected {kind.__name__}s, got {str(parts)[:80]!r}")
    for number, part in enumerate(found := tuple(parts), start=1):
        if _is_plain_text(part):
            continue
        if not isinstance(part, kind):
            raise EnvironmentFault(f"expected a {kind.__name__}, got {str(part)[:80]!r}")
        try:
            written = part.model_dump_json()
            same = read_object(written) is not None and kind.model_validate_json(written) == part
        except (ValueError, RecursionError):
            same = False
        if not same:
            raise EnvironmentFault(
                f"{kind.__name__} {number} of {len(found)} would not be read back equal from JSON: no lone surrogates, "
                "NaN, tuples, integers beyond 64 bits or bottomless values"
            )
    return found


def _is_plain_text(part: Any) -> bool:
    """True for a message of text alone, which needs no trial to be read back equal. Most messages are such."""
    if type(part) is not Message or part.__dict__.keys() != _FIELDS:
        return False
    role, texts = part.role, (part.content, part.tool_call_id, part.name)
    if part.tool_calls != () or type(role) is not str or role not in _ROLES:
        return False
    return all(text is None or (type(text) is str and (text.isascii() or _encodes(text))) for text in texts)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def checked_outcome(value: Any) -> Outcome:
    """``value`` if it is an Outcome with a reward in [0, 1] and finite components. Raises EnvironmentFault."""
    if not isinstance(value, Outcome):
        raise EnvironmentFault(f"expected an Outcome, got {str(value)[:80]!r}")
    reward = without_rounding(value.reward) if isinstance(value.reward, Real) else math.nan
    if not 0.0 <= reward <= 1.0:  # true for NaN
        raise EnvironmentFault(f"reward {shortened(value.reward)} is not in [0, 1]")
    if not isinstance(value.components, Mapping):
        raise EnvironmentFault(f"reward components are {value.components!r}, not a mapping")
    for name, component in value.components.items():
        if not isinstance(name, str):
            raise EnvironmentFault(f"reward component {name!r} has no string for a name")
        name.encode()  # raises for a lone surrogate, which no file can hold
        if not (isinstance(component, Real) and abs(component) <= sys.float_info.max):
            raise EnvironmentFault(f"reward component {name!r} is {shortened(component)}, not a finite number")
    components = {name: float(component) for name, component in value.components.items()}
    return Outcome(float(reward), components, checked_parts(value.checks, Check), checked_extra(value.extra))


def checked_hint(environment: Any) -> str:
    """The hint of an environment, without what no file can hold. Raises EnvironmentFault if it has none."""
    if not isinstance(environment, Hinting):
        raise EnvironmentFault(f"{type(environment).__name__} has no hint(): play it without")
    found = environment.hint()
    if not isinstance(found, str):
        raise EnvironmentFault(f"hint() returned {str(found)[:80]!r}, not a text")
    return found.encode(errors="backslashreplace").decode()


def checked_extra(extra: Any) -> dict[str, Any]:
    """``extra`` of an outcome or environment if it is an object that is read back equal from JSON.

    Raises EnvironmentFault.
    """
    try:
        read = read_object(text_of(extra)) if isinstance(extra, dict) else None
    except RenderError:
        read = None
    if read is None or read != extra:
        raise EnvironmentFault(f"extra is {str(extra)[:80]!r}, not a dictionary of JSON values")
    return read


def writable(text: str) -> str:
    """``text`` without line breaks and lone surrogates, which no file can hold."""
    return " ".join(text.split()).encode(errors="backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """``Type: text`` without line breaks, in characters that a file can hold."""
    text = writable(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
