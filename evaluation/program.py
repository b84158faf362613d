"""Entry point of programs that read finished work and need no configuration."""

from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from trace_jax.program import fail, guarded, parse_flags


def run(main: Callable[[], None]) -> NoReturn:
    """Parse the flags, call ``main()``, exit with the status of ``trace_jax.program``."""
    app.run(lambda _: guarded(main), flags_parser=_parse)
    raise AssertionError("app.run exits")


def required(flag: "flags.FlagHolder[str | None]") -> str:
    """The flag's value. Exits with status 2 if the flag is missing."""
    if not flag.value:
        fail(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}", 2)
    return flag.value


def _parse(arguments: list[str]) -> list[str]:
    try:
        return parse_flags(arguments)
    except flags.Error as error:
        fail(str(error), 2)
