"""What every program shares: its flags, ``--dry_run``, and errors in one line.

    def main(config: ConfigDict, workdir: epath.Path) -> None: ...

    if __name__ == "__main__":
        run(main)

``--config=FILE`` names a file with ``get_config()``; ``--config.key=value`` changes a field; unknown keys are refused.
``--help`` prints what the program does, its flags and the settings of its configuration.
The log goes to stderr: INFO and above of our own packages, WARNING and above of all others.
Exit status: 0 done, 1 failed, 2 a wrong command line, 130 interrupted, 143 ended by SIGTERM (where a program goes on).
"""

import logging
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any, NoReturn, TextIO

from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from trace_jax.contract.lock import locked
from trace_jax.errors import TraceError
from trace_jax.llm.prompts import print_prompts
from trace_jax.parallel.termination import Terminated
from trace_jax.run_settings import sections, settings_help
from trace_jax.settings import Settings

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file with get_config()", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "work directory: a local path or an object store (gs://…)")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the resolved configuration and stop")

_PRINT_PROMPTS = "print_prompts"

# Failures that a user can mend: one line. Anything else is a bug and keeps its traceback.
EXPECTED = (TraceError, OSError, FloatingPointError)

Main = Callable[[ConfigDict, epath.Path], None]
DryRun = Callable[[ConfigDict, epath.Path | None], None]


def run(
    main: Main,
    *,
    settings: Iterable[type[Settings]] = tuple(sections()),
    exclusive: bool = True,
    prompts: Sequence[str] = (),
    dry_run: DryRun | None = None,
) -> NoReturn:
    """Parse the command line, call ``main(config, workdir)`` with a locked config, and exit.

    Args:
        settings: what ``--help`` lists of the configuration; by default the settings of a run.
        exclusive: lock the work directory while the program runs. False for a program that does so itself.
        prompts: packages whose prompts for language models ``--print_prompts`` prints.
        dry_run: called in a dry run after the configuration is printed, to check what can be checked for nothing. Its
            work directory is None if there is no such flag.
    """

    def call() -> None:
        workdir = epath.Path(WORKDIR.value)
        with locked(workdir) if exclusive else nullcontext():
            main(CONFIG.value, workdir)

    def check() -> None:
        if dry_run is not None:
            dry_run(CONFIG.value, epath.Path(WORKDIR.value) if WORKDIR.value else None)

    _help(settings)
    if prompts:
        flags.DEFINE_bool(_PRINT_PROMPTS, False, "print the prompts that language models get, and stop")
    app.run(
        lambda _: _call(call, WORKDIR.value, prompts, check), flags_parser=lambda arguments: parse(arguments, WORKDIR)
    )
    raise AssertionError("app.run exits")


def run_without_workdir(
    main: Callable[[ConfigDict], None], *, settings: Iterable[type[Settings]] = tuple(sections())
) -> NoReturn:
    """As ``run``, for a program that leaves no results behind: it is called as ``main(config)``."""
    _help(settings)
    app.run(lambda _: _call(lambda: main(CONFIG.value)), flags_parser=lambda arguments: parse(arguments, None))
    raise AssertionError("app.run exits")


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parse the command line. Raises ``flags.Error`` for an unknown flag, and for an argument that is none."""
    rest: list[str] = flags.FLAGS(arguments)
    if len(rest) > 1:
        raise flags.Error(f"unexpected argument {rest[1]!r}: flags are written --name=value")
    return rest


def guarded(main: Callable[[], None], results: str | None = None) -> int:
    """Call ``main``; its exit status. What a user can mend ends the program with one line and status 1.

    SIGTERM and SIGINT end it where it is, with a line that says what is kept: all that stands in ``results``.
    """
    _show_log()
    kept = f"{results} keeps what was finished; " if results else ""
    try:
        with _terminable():
            main()
    except EXPECTED as error:
        fail(str(error), 1)
    except Terminated as ended:
        print(f"terminated: {kept}the same command goes on from here", file=sys.stderr)
        return ended.status
    except KeyboardInterrupt:
        print(f"interrupted: {kept}the same command goes on from here", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """The first SIGTERM raises Terminated in the block; a second one ends the process at once.

    Code in the block that handles the signal otherwise (``Termination``, uvicorn) is not affected.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def fail(message: str, status: int) -> NoReturn:
    """End the program with ``message`` in one line on stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def parse(arguments: Sequence[str], results: flags.FlagHolder | None) -> list[str]:
    """Parse the command line, or end the program with status 2. A dry run does not need the flag ``results``."""
    try:
        rest = parse_flags(arguments)
        if _prints_prompts():
            return rest
        if CONFIG.value is None:
            raise flags.Error("--config is missing: name a file, for instance --config=configs/quickstart.py")
        _ = CONFIG.value.is_locked  # a file that could not be loaded raises only when it is used
        if results is not None and not results.value and not DRY_RUN.value:
            raise flags.Error(f"--{results.name} is missing: name a directory for the results, or use --dry_run")
    except (flags.Error, *EXPECTED) as error:
        fail(_unreadable_file(error) or str(error), 2)
    except Exception as error:  # a configuration file is a program, which may raise anything
        fail(_unknown_key(error) or f"{_config_file()}: {type(error).__name__}: {error}", 2)
    return rest


def _help(settings: Iterable[type[Settings]]) -> None:
    """Let ``--help``, which prints what the program says of itself, list the settings as well."""
    program = sys.modules["__main__"]
    if settings := tuple(settings):
        program.__doc__ = f"{program.__doc__ or ''}\n{settings_help(settings)}\n"


def _prints_prompts() -> bool:
    return _PRINT_PROMPTS in flags.FLAGS and bool(flags.FLAGS[_PRINT_PROMPTS].value)


def _call(
    main: Callable[[], None],
    results: str | None = None,
    prompts: Sequence[str] = (),
    dry_run: Callable[[], None] = lambda: None,
) -> int:
    if _prints_prompts():
        return guarded(lambda: print_prompts([*prompts, "trace_jax.llm"]))
    if DRY_RUN.value:
        print(CONFIG.value)
        return guarded(dry_run)

    def configured() -> None:
        from trace_jax.telemetry.compiles import enable_compilation_cache  # JAX is slow to import; the above needs none

        enable_compilation_cache()
        main()

    return guarded(configured, results)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr when a record comes: progress bars stand in for it, to keep lines above themselves."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.stream = sys.stderr
        super().emit(record)


def _show_log() -> None:
    """Log to stderr: INFO and above of our own packages, WARNING and above of others (orbax tells every step)."""
    # force: app.run has installed absl's handler, beside which basicConfig would do nothing
    logging.basicConfig(
        level=logging.WARNING,
        format="%(levelname)s %(asctime)s %(name)s: %(message)s",
        handlers=[_Stderr()],
        force=True,
    )
    for package in ("trace_jax", "launch", "evaluation"):
        logging.getLogger(package).setLevel(logging.INFO)


def _unreadable_file(error: Exception) -> str | None:
    """One line if ``error`` holds the traceback of a configuration file that could not be loaded: what it ends with."""
    lines = str(error).strip().splitlines()
    return f"{_config_file()}: {lines[-1].strip()}" if any(line.startswith("Traceback") for line in lines) else None


def _config_file() -> str:
    return next((word for word in sys.argv if re.match(r"--?config(=|$)", word)), "--config")


def _unknown_key(error: Exception) -> str | None:
    """One line if ``error`` is about an unknown config key (ml_collections prints the whole config or only the key)."""
    cause: Any = error.args[0] if isinstance(error, AttributeError) and error.args else error
    if not isinstance(cause, KeyError):
        return None
    text = str(cause.args[0])
    key = re.search(r"lookup: ([\w.]+)", text) or re.search(r"[\"']([\w.]+)[\"']", text)
    meant = re.search(r"Did you mean \"([\w.]+)\"", text)
    return (
        f"unknown config key {key.group(1) if key else text!r}"
        f"{f', did you mean {meant.group(1)}?' if meant else ''}: --dry_run without it prints the known ones"
    )
