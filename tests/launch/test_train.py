"""launch.train as a user starts it: two adapters in one run, stopped by SIGTERM, gone on with elsewhere, refused."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from etils import epath
from programs import run_program

from configs import quickstart
from launch import train
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.lock import locked
from trace_jax.errors import UserError
from trace_jax.telemetry.metrics import read_metrics

sys.path.append(str(Path(__file__).parents[1] / "parallel"))
import pair  # noqa: E402

FAMILIES = {"steps": "complete_all_steps:CompleteAllSteps", "verify": "verify_before_acting:VerifyBeforeActing"}
SMALL = {
    "training.max_steps": 2,
    "training.groups_per_step": 2,
    "training.num_generations": 4,
    "training.micro_batch_tokens": 1024,
    "training.num_iterations": 1,
    "training.beta": 0.0,
    "training.max_recollections": 0,
    "rollout.max_turns": 3,
    "engine.slots": 8,
    "telemetry.tensorboard": False,
}


def manifest(directory: Path, name: str) -> Path:
    design = Design(entry_point=f"trace_jax.environments.helpdesk.practice.{FAMILIES[name]}", parameters={})
    path = directory / f"{name}.json"
    capability = FAMILIES[name].partition(":")[0]
    write_document(path, EnvironmentManifest(
        name=name, capability=capability, target="helpdesk", designer="rules", design=design, gates=(),
        calibration=None, rollouts=0))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    directory = tmp_path_factory.mktemp("environments")
    for name in FAMILIES:
        manifest(directory, name)
    (directory / "other.failed.json").write_text("{}")  # what synthesis leaves of a capability that it gave up
    return directory


def command(workdir: Path, *arguments: object, **changes: object) -> list[str]:
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    program = [sys.executable, "-m", "launch.train", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    return [*program, *words, *map(str, arguments)]


def run(workdir, *arguments, devices=1, **changes):
    return run_program(*command(workdir, *arguments, **changes)[2:], env=pair.environment(devices))


def metrics(workdir, name):
    rows = read_metrics(workdir / "adapters" / name)
    return {(step, key): x for step, row in rows.items() for key, x in row.items() if not key.startswith("time/")}


@pytest.fixture(scope="module")
def finished(environments, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("train") / "run"
    done = run(workdir, f"--environments={environments}")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_it_leaves_an_adapter_for_each_environment(finished):
    workdir, done = finished
    for name in FAMILIES:
        trained = read_document(workdir / "adapters" / name / "adapter.json", AdapterManifest)
        assert (trained.environments, trained.steps, trained.rollouts) == ((name,), 2, 16)
        assert f"adapters/{name}: 2 steps, 16 rollouts, mean reward" in done.stdout
        assert f"training {name}: 2/2" in done.stderr and len(metrics(workdir, name)) > 10


def test_what_is_trained_is_not_trained_again_and_other_settings_are_refused(finished, environments):
    workdir, _ = finished
    elsewhere = dict(mesh__fsdp=2, mesh__data=1, training__save_steps=7)
    again = run(workdir, f"--environments={environments}", devices=2, **elsewhere)
    assert again.returncode == 0 and "every adapter is trained" in again.stdout and "training steps" not in again.stderr
    refused = run(workdir, f"--environments={environments}", training__learning_rate=0.5)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "training.learning_rate was 0.003, is 0.5" in refused.stderr


@pytest.mark.slow  # tests/parallel holds what two processes agree on, test_distributed what they train
def test_two_processes_told_to_stop_exit_with_143_and_one_goes_on(finished, environments, tmp_path):
    workdir, changes = tmp_path / "run", {"training__max_steps": 2}
    together = ["--distributed", f"--coordinator_address={pair.free_address()}", "--num_processes=2"]
    started = [
        subprocess.Popen(
            command(workdir, f"--environments={environments}", *together, f"--process_id={number}", **changes),
            env=pair.environment(2), cwd=pair.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(2)
    ]  # fmt: skip
    first = workdir / "adapters" / "verify" / "metrics.jsonl"
    while not first.exists() or not first.read_bytes():  # until a step is done
        assert started[0].poll() is None, started[0].communicate()
        time.sleep(0.1)
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process, _, errors in pair.finish(started):
        assert process.returncode == 143, errors[-3000:]
        kept = f"terminated: {workdir} keeps what was finished; the same command goes on from here"
        assert kept in errors and "Traceback" not in errors
    assert not (workdir / "adapters" / "steps" / "adapter.json").exists()
    done = run(workdir, f"--environments={environments}", **changes)
    assert done.returncode == 0, done.stderr
    for name in FAMILIES:
        assert metrics(workdir, name) == pytest.approx(metrics(finished[0], name), abs=1e-5)


def refuse(workdir, changes=(), **given):
    """What ``main`` raises for flags and settings, in this process."""
    config = quickstart.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({**SMALL, **dict(changes)})
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**given), pytest.raises(UserError) as refused:
        train.main(config, epath.Path(workdir))
    assert not (Path(workdir) / "workdir.json").exists()
    return str(refused.value)


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"rollout.temperature": 0.0}, "rollout.temperature is 0"),
        ({"engine.kind": "vllm"}, "engine.kind is 'vllm': it should be 'embedded', 'sglang' or 'chat'"),
        ({"engine.kind": "sglang"}, "engine.url '' names no servers: write --config.engine.url=http://HOST:PORT"),
        ({"engine.wait_seconds": 0.0}, "engine.wait_seconds is 0.0: it should be greater than 0"),
        ({"mesh.data": 3}, "mesh data 3×fsdp 1×tensor 1×expert 1 takes 3 devices, but there are 8"),
        ({"mesh.data": 1, "mesh.tensor": 8}, "mesh axis tensor 8 does not divide vocab_size 743: use tensor 1"),
        ({"mesh.fsdp": -1}, "at most one may be -1"),
        ({"base.path": "nowhere"}, "nowhere/config.json is missing"),
        ({"training.max_steps": None}, "training.max_steps and training.max_rollouts are both None"),
        ({"engine.capacity": 256}, "engine.capacity 256 is below"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(environments, tmp_path, changes, words):
    assert re.search(words, refuse(tmp_path / "run", changes, environments=[str(environments)]))


@pytest.mark.parametrize(
    "given,words",
    [
        ({}, "nothing to train on: give --environments=MANIFEST,.* or --target=NAME"),
        ({"environments": ["absent.json"]}, "absent.json: no such file"),
        ({"environments": ["EMPTY"]}, "holds no environment manifest"),
        ({"environments": ["FULL", "FULL/steps.json"]}, "two environments are called steps"),
        ({"target": "heldpesk"}, "no target 'heldpesk': known are agentdojo"),
        ({"target": "helpdesk", "process_id": 1}, "--process_id without --distributed: add that flag"),
    ],
)
def test_flags_that_cannot_work_are_refused(environments, tmp_path, given, words):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": str(tmp_path / "empty"), "FULL": str(environments)}
    given = {**given, "environments": [
        path.replace("FULL", places["FULL"]).replace("EMPTY", places["EMPTY"]) for path in given.get("environments", [])
    ]}  # fmt: skip
    assert re.search(words, refuse(tmp_path / "run", **given))


def test_the_tasks_of_a_target_are_an_environment_too(tmp_path):
    done = run(tmp_path / "run", "--target=helpdesk", training__max_steps=1)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "run" / "adapters" / "grpo_on_helpdesk" / "adapter.json"
    assert read_document(path, AdapterManifest).environments == ("helpdesk",)


def test_a_mesh_that_does_not_fit_is_one_line_for_a_user(environments, tmp_path):
    done = run(tmp_path / "run", f"--environments={environments}", mesh__data=3)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(
        "error: mesh data 3×fsdp 1×tensor 1×expert 1 takes 3 devices, but there are 1: choose"
    )


def test_other_processes_are_joined_as_the_flags_tell(environments, tmp_path):
    together = "--distributed", "--coordinator_address=somewhere", "--num_processes=2", "--process_id=1"
    done = run(tmp_path / "run", f"--environments={environments}", *together)
    assert done.returncode == 1 and "--coordinator_address=somewhere: write HOST:PORT" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_second_start_is_refused_while_one_trains(environments, tmp_path):
    workdir = tmp_path / "run"
    with locked(workdir):
        done = run(workdir, f"--environments={environments}")
    assert done.returncode == 1 and f"{workdir}: process {os.getpid()} on " in done.stderr.splitlines()[-1], done.stderr
