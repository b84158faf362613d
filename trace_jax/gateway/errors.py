"""Refusals in OpenAI's error shape."""

import traceback
from collections.abc import Mapping

from starlette.responses import JSONResponse

from trace_jax.gateway.validation import InvalidField


class ApiError(Exception):
    """The error that a client gets: ``status`` and ``{"error": {message, type, param, code}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    @property
    def kind(self) -> str:
        """OpenAI's ``type`` for the status."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def response(self) -> JSONResponse:
        """The response that says it. Half surrogate pairs that a request holds are escaped in it."""
        param = None if self.param is None else _encodable(self.param[:80])
        error = {"message": _encodable(self.message), "type": self.kind, "param": param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def refused(error: InvalidField, *, code: str | None = None) -> ApiError:
    """The error (400) for a field that cannot be used."""
    return ApiError(400, str(error), param=error.param, code=code)


def frames(error: BaseException) -> str:
    """Where an error of this program came from, for the log: not its text, which may quote a message."""
    return "".join(traceback.format_tb(error.__traceback__))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
