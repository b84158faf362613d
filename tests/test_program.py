"""A program's command line: flags, dry run, one-line errors and exit status, as a user's shell sees them."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import run_program

ROOT = Path(__file__).parents[1]
BASE = "--config=configs/base.py"
PROGRAM = """
    import logging, sys, time
    from absl import logging as absl_logging
    from trace_jax.program import run
    from trace_jax.errors import UserError
    from trace_jax.telemetry.progress import Progress

    def main(config, workdir):
        if config.seed == 1:
            raise UserError("routes.json: broken\\nin two lines")
        if config.seed == 2:
            raise ZeroDivisionError("a bug")
        if config.seed == 3:
            print("ready", flush=True)
            time.sleep(60)
        if config.seed == 4:
            open(workdir / "absent")
        if config.seed == 5:
            with Progress() as progress, progress.stage("train", 3):
                for name in ("trace_jax.engines.sglang.pool", "launch.serve", "evaluation.sweep", "orbax.checkpoint"):
                    logging.getLogger(name).debug("too much")
                    logging.getLogger(name).info("told by %s", name)
                absl_logging.info("told by absl")
                absl_logging.warning("absl warns")
        print("main", config.training.rank, config.training.max_steps, config.is_locked, workdir)

    run(main)
"""


def command(directory: Path, *arguments: str) -> list[str]:
    program = directory / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    return [sys.executable, str(program), *arguments]


def call(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command(directory)
    return run_program("program", *arguments, env={"PYTHONPATH": str(directory), **variables})


def one_line_error(result: subprocess.CompletedProcess, status: int) -> str:
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_fields_are_changed_on_the_command_line(tmp_path):
    result = call(tmp_path, BASE, "--config.training.rank=4", "--config.training.max_steps=7", "--workdir=gs://b/run")
    assert (result.returncode, result.stdout) == (0, "main 4 7 True gs://b/run\n"), result.stderr


def test_prompts_are_printed_where_a_program_has_some(tmp_path):
    result = call(tmp_path, "--print_prompts")
    assert "unknown command line flag 'print_prompts'" in one_line_error(result, 2).lower()
    with_prompts = PROGRAM.replace("run(main)", "run(main, prompts=['trace_jax.llm'])")
    (tmp_path / "prompts.py").write_text(textwrap.dedent(with_prompts))
    result = run_program("prompts", "--print_prompts", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 0 and "=== trace_jax.llm: repair, version 1-" in result.stdout, result.stderr
    assert "main" not in result.stdout and not result.stderr


def test_dry_run_prints_the_resolved_config_and_stops(tmp_path):
    result = call(tmp_path, BASE, "--config.training.rank=4", "--dry_run")
    assert result.returncode == 0 and "main 4" not in result.stdout
    assert "\n  rank: 4\n" in result.stdout and "\n  learning_rate: 0.0001\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config is missing"),
        ((BASE,), "--workdir is missing"),
        (("--config=configs/absent.py", "--dry_run"), "configs/absent.py"),
        ((BASE, "--config.training.rnk=4", "--dry_run"), "unknown config key 'rnk'"),
        ((BASE, "--config.trainin.rank=4", "--dry_run"), "unknown config key 'trainin', did you mean training?"),
        ((BASE, "--config.training.rank.x=4", "--dry_run"), "unknown config key 'training.rank.x'"),
        ((BASE, "--workdir="), "--workdir is missing"),
        (("--config=configs/quickstart.py:fast", "--dry_run"), "--config=configs/quickstart.py:fast: TypeError"),
        ((BASE, "--config.seed=x", "--dry_run"), "--config.seed=x"),
        ((BASE, "--dry_run", "--colour=red"), "colour"),
        ((BASE, "--dry_run", "quickstart"), "unexpected argument 'quickstart'"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, words, tmp_path):
    assert words in one_line_error(call(tmp_path, *arguments), 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "AttributeError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def get_config(): raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
    ],
)
def test_a_config_file_that_cannot_be_loaded_is_named_in_one_line(text, words, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    line = one_line_error(call(tmp_path, f"--config={tmp_path}/mine.py", "--dry_run"), 2)
    assert f"{tmp_path}/mine.py" in line and words in line


def test_an_unknown_key_in_a_config_file_is_refused(tmp_path):
    delta = tmp_path / "delta.py"
    delta.write_text(
        "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        "    config.training.learning_rte = 1.0\n    return config\n"
    )
    message = one_line_error(call(tmp_path, f"--config={delta}", "--dry_run"), 2)
    assert "learning_rte" in message and "did you mean learning_rate?" in message and len(message) < 150


def test_what_a_user_can_mend_is_one_line_and_a_bug_keeps_its_traceback(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    message = one_line_error(call(tmp_path, BASE, workdir, "--config.seed=1"), 1)
    assert message == "error: routes.json: broken in two lines"
    assert "absent" in one_line_error(call(tmp_path, BASE, workdir, "--config.seed=4"), 1)
    result = call(tmp_path, BASE, workdir, "--config.seed=2")
    assert result.returncode == 1 and "Traceback" in result.stderr and "ZeroDivisionError: a bug" in result.stderr


@pytest.mark.parametrize("terminal", [False, True])
def test_our_own_packages_are_heard_and_others_only_when_they_warn(tmp_path, terminal):
    """Each line once, and none behind a bar."""
    variables = {"FORCE_COLOR": "1", "TERM": "xterm"} if terminal else {}  # rich then draws its bars into the pipe
    result = call(tmp_path, BASE, f"--workdir={tmp_path / 'run'}", "--config.seed=5", **variables)
    assert result.returncode == 0 and ("\x1b[" in result.stderr) == terminal, result.stderr
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", result.stderr))
    said = [line for line in lines if "told by" in line or "too much" in line or "warns" in line]
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    ours = [
        f"INFO {time} {name}: told by {name}"
        for name in ("trace_jax.engines.sglang.pool", "launch.serve", "evaluation.sweep")
    ]
    assert len(said) == 4 and all(map(re.fullmatch, [*ours, f"WARNING {time} absl: absl warns"], said)), said


@contextmanager
def sleeping(directory: Path, workdir: Path):
    """The program at work; it sleeps for a minute."""
    arguments = command(directory, BASE, f"--workdir={workdir}", "--config.seed=3")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("sign", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_it_with_one_line_on_what_is_kept(sign, status, word, tmp_path):
    workdir = tmp_path / "run"
    with sleeping(tmp_path, workdir) as process:
        process.send_signal(sign)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert errors == f"{word}: {workdir} keeps what was finished; the same command goes on from here\n"


def test_a_second_start_is_refused_naming_the_first_until_that_is_killed(tmp_path):
    workdir = tmp_path / "run"
    with sleeping(tmp_path, workdir) as process:
        message = one_line_error(call(tmp_path, BASE, f"--workdir={workdir}"), 1)
        host = re.escape(socket.gethostname())
        owner = rf"process {process.pid} on {host} \(since \d{{4}}-\S+: .*program.py --config=\S+ .*\)"
        remedy = "wait until it has ended, end it, or choose another directory"
        assert re.fullmatch(f"error: {workdir}: {owner} works there: {remedy}", message), message
        process.kill()
        process.wait()
        assert call(tmp_path, BASE, f"--workdir={workdir}").returncode == 0
    assert list(workdir.iterdir()) == []  # nothing was written


def test_an_object_store_is_said_to_have_no_locks(tmp_path):
    result = call(tmp_path, BASE, "--workdir=gs://b/run")
    assert result.returncode == 0 and "gs://b/run: an object store has no locks: make sure that no" in result.stderr
