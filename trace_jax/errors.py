"""The project's own errors. UserError is for faults that a user can fix, EngineError for those of engines and servers.

Every message is one line that names the offending value or file, then the remedy. A program ends with such a line and
status 1; any other exception is a bug and keeps its traceback.
"""


class TraceError(Exception):
    """Base of the project's own errors."""


class UserError(TraceError):
    """A file, setting or value that a user gave cannot be used."""


class EngineError(TraceError):
    """An engine could not serve a request. The episode that asked is broken, not failed; elsewhere the program ends."""


class EngineGone(EngineError):
    """No server is left that could serve any request. The collection ends; no episode is broken by it."""
