"""Programs that read finished work and need no configuration."""

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from launch.common import EXPECTED


def run(main: Callable[[], None]) -> NoReturn:
    """Parse the flags, call ``main()``, exit: 0 done, 1 failed (one line on stderr), 2 a wrong command line."""
    app.run(lambda _: _call(main), flags_parser=_parse)
    raise AssertionError("app.run exits")


def required(flag: "flags.FlagHolder[str | None]") -> str:
    """The flag's value; exits with status 2 when it was not given."""
    if not flag.value:
        _fail(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}", 2)
    return flag.value


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest: list[str] = flags.FLAGS(arguments)
    except flags.Error as error:
        _fail(str(error), 2)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: flags are written --name=value", 2)
    return rest


def _call(main: Callable[[], None]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        main()
    except EXPECTED as error:
        _fail(str(error), 1)
    return 0


def _fail(message: str, status: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
