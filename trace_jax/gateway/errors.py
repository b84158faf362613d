"""Refusals in OpenAI's error shape."""

import traceback
from collections.abc import Mapping

from starlette.responses import JSONResponse


class ApiError(Exception):
    """What a client is told: ``status`` and ``{"error": {message, type, param, code}}``."""

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
        """The answer that says it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def frames(error: BaseException) -> str:
    """Where an error of this program came from, for the log: not its text, which may quote a message."""
    return "".join(traceback.format_tb(error.__traceback__))
