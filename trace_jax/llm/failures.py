"""Failed attempts, told apart: which are worth another one and when, and what a user reads when none is left."""

import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from trace_jax.llm.errors import EndpointRefused, EndpointUnreachable, LLMError, PromptTooLong
from trace_jax.llm.settings import LanguageModelSettings

_TRANSIENT = (408, 409, 425, 429)  # and all from 500 on
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
_TOO_LONG = re.compile(
    r"context[ _](length|window)|context_length_exceeded|prompt is too long|too many (input )?tokens"
    r"|input is too long|exceeds? the (maximum|max) (number of )?(input )?tokens",
    re.IGNORECASE,
)  # what endpoints say of a prompt that is longer than the model's context
_LONGEST = 300  # characters of what an endpoint says
_REMEDIES = {
    401: "set a valid API key in {variable}",
    402: "add credit, or choose another endpoint",
    403: "set a key in {variable} that may use this model",
    404: "correct the URL, which usually ends with /v1, or the model's name",
    429: "lower the concurrency, or start again later",
}


class FailedAttempt(Exception):
    """One attempt that brought no answer.

    Attributes:
        why: one line, without the API key.
        again: whether another attempt may succeed.
        after: seconds that the endpoint wants to be left alone; None if it does not say.
        connected: False if no connection could be made.
        answered: True if the endpoint may have made an answer, and so may charge for it.
    """

    def __init__(
        self,
        why: str,
        *,
        again: bool,
        status: int | None = None,
        code: str = "",
        after: float | None = None,
        connected: bool = True,
        answered: bool = False,
    ) -> None:
        super().__init__(why)
        self.why, self.again, self.status, self.code, self.after = why, again, status, code, after
        self.connected, self.answered = connected, answered

    def error(self, where: str, attempts: int, variable: str) -> LLMError:
        """What the caller gets after ``attempts`` attempts; ``where`` names URL and model."""
        times = f" after {attempts} attempts" if attempts > 1 else ""
        status = f"status {self.status}{times}: " if self.status else ""
        message = f"{where}: {status}{self.why}{'' if status else times}"
        if not self.connected:
            return EndpointUnreachable(f"{message}: start the endpoint, or correct its URL")
        no_credit = self.code in _NO_CREDIT
        remedy = _REMEDIES[402] if no_credit else _REMEDIES.get(self.status or 0, "")
        kind = EndpointRefused if self.status in (401, 402, 403, 404) or no_credit else LLMError
        if self.status in (400, 413, 422) and _TOO_LONG.search(f"{self.code} {self.why}"):
            kind = PromptTooLong
        end = f": {remedy.format(variable='$' + variable)}" if remedy else ""
        return kind(message + end, status=self.status, code=self.code)


def of_status(status: int, headers: Mapping[str, str], body: Any, secret: str) -> FailedAttempt:
    """The failure that a response of ``status`` is."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    code = one_line(str(error.get("code") or ""), secret) if isinstance(error, Mapping) else ""
    said = error.get("message") if isinstance(error, Mapping) else error
    again = (status in _TRANSIENT or status >= 500) and code not in _NO_CREDIT
    why = one_line(said if isinstance(said, str) and said.strip() else "no reason is given", secret)
    return FailedAttempt(why, again=again, status=status, code=code, after=retry_after(headers))


def of_connection(error: BaseException, secret: str) -> FailedAttempt:
    """No connection, or one that broke off."""
    cause = error.__cause__ or error
    name = type(cause).__name__
    return FailedAttempt(
        f"no connection ({name}: {one_line(str(cause), secret)})",
        again=True,
        connected=False,
        answered=not name.startswith("Connect"),
    )


def of_timeout(error: BaseException, settings: LanguageModelSettings) -> FailedAttempt:
    """A connection that took too long to make, silence, or an answer that did not end in time."""
    phase = type(error.__cause__ or error).__name__
    if phase == "ConnectTimeout":
        return FailedAttempt(f"no connection within {settings.connect_seconds:g} s", again=True, connected=False)
    if phase in ("ReadTimeout", "WriteTimeout"):
        return FailedAttempt(f"the endpoint was silent for {settings.read_seconds:g} s", again=True, answered=True)
    return FailedAttempt(f"no whole answer within {settings.request_seconds:g} s", again=True, answered=True)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the time in ``Retry-After``, which is a number of seconds or a date; None without a valid one."""
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        parsed = email.utils.parsedate_tz(given)
        if parsed is None:
            return None
        seconds = email.utils.mktime_tz(parsed) - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def one_line(text: str, secret: str) -> str:
    """``text`` in one bounded line without ``secret``, in characters that a file can hold."""
    text = text.replace(secret, "***") if secret else text
    text = " ".join(text.split()).encode(errors="backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
