"""Trajectories of the tiny agent as a user collects them: from anything that can be played, once, and for analysis."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from programs import run_program

from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_records, write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.formats.huggingface import read_config, revision
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.rollout.recording import LOGPROB_BOUND

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "assets" / "tiny_agent"
SEED = int.from_bytes(os.urandom(3), "big")


def command(workdir: Path, *flags: str, tasks: int = 3, trials: int = 2) -> list[str]:
    settings = [f"--config.target.train_tasks={tasks}", f"--config.rollout.trials={trials}", f"--config.seed={SEED}"]
    program = [sys.executable, "-m", "launch.rollout", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    return [*program, *settings, *flags]


def rollout(workdir: Path, *flags: str, **sizes: int) -> subprocess.CompletedProcess[str]:
    return run_program(*command(workdir, *flags, **sizes)[2:])


def episodes(workdir: Path) -> list[Trajectory]:
    return list(read_records(workdir / "trajectories.jsonl", Trajectory))


def assert_same(first: Trajectory, other: Trajectory) -> None:
    """Equal but for how long they took and, within the bound that is stated for a resume, for log-probabilities."""

    def exact(episode: Trajectory) -> Trajectory:
        silent = tuple(s.replace(logprobs=(0.0,) * len(s.logprobs)) for s in episode.segments)
        return episode.replace(seconds=0.0, segments=silent)

    assert exact(first) == exact(other)
    for ours, theirs in zip(first.segments, other.segments, strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=0.0, atol=LOGPROB_BOUND)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("rollout") / "run"
    done = rollout(workdir)
    assert done.returncode == 0, done.stderr
    assert "6 episodes" in done.stdout and " 0 broken, mean reward " in done.stdout
    assert "rollouts of helpdesk: 6/6" in done.stderr and "episodes/s" in done.stderr and "tokens/s" in done.stderr
    return workdir


def test_episodes_are_the_bases_on_training_tasks(finished: Path) -> None:
    played = episodes(finished)
    assert len({episode.id for episode in played}) == len(played) == 6
    assert {episode.split for episode in played} == {"train"} and {episode.policy.adapter for episode in played} == {
        None
    }
    assert {episode.policy.base for episode in played} == {revision(AGENT)}
    for episode in played:
        sampled = sum(len(segment.tokens) for segment in episode.segments if segment.trained)
        assert episode.usage.completion_tokens == sampled > 0 and episode.reward is not None


def test_a_second_run_repeats_nothing_and_more_trials_add_to_it(finished: Path) -> None:
    before = (finished / "trajectories.jsonl").read_bytes()
    again = rollout(finished)
    assert again.returncode == 0 and (finished / "trajectories.jsonl").read_bytes() == before
    more = rollout(finished, trials=3)
    assert more.returncode == 0 and "9 episodes" in more.stdout
    after = (finished / "trajectories.jsonl").read_bytes()
    assert after.startswith(before) and len({episode.id for episode in episodes(finished)}) == 9
    assert rollout(finished).stdout.count("6 episodes") == 1  # fewer: what is asked for is told, all is kept
    assert (finished / "trajectories.jsonl").read_bytes() == after


def test_killed_it_goes_on_and_a_torn_line_is_played_again(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "trajectories.jsonl"
    process = subprocess.Popen(command(path.parent, "--config.rollout.concurrency=1"), cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 600
        while not (path.exists() and path.read_bytes().count(b"\n")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"\n") + 1] + whole.splitlines()[0][:100])
    done = rollout(path.parent)
    assert done.returncode == 0 and "cut off a torn last line of 100 bytes" in done.stderr
    ours, theirs = ({episode.id: episode for episode in episodes(place)} for place in (path.parent, finished))
    assert len(ours) == 6
    for name, episode in ours.items():
        assert_same(episode, theirs[name])


def assert_can_be_analysed(workdir: Path, out: Path, count: int, least: int) -> None:
    """As so many trajectories, of which at least ``least`` failed."""
    source = f"--config.source.path={workdir / 'trajectories.jsonl'}"
    flags = "--config=configs/quickstart.py", f"--workdir={out}", source, "--config.analysis.runs=2"
    done = run_program("launch.analyze", *flags)
    assert done.returncode == 0, done.stderr
    failed = sum(episode.reward != 1.0 for episode in episodes(workdir))
    assert f"{count - failed} passed, {failed} failed, 0 broken." in done.stdout and failed > least


def test_what_was_collected_can_be_analysed(finished: Path, tmp_path: Path) -> None:
    assert_can_be_analysed(finished, tmp_path, len(episodes(finished)), 0)


@pytest.mark.slow
def test_many_that_were_collected_can_be_analysed(tmp_path: Path) -> None:
    assert rollout(tmp_path / "run", tasks=40, trials=1).returncode == 0
    assert_can_be_analysed(tmp_path / "run", tmp_path / "out", 40, 10)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path]:
    """Manifests of an environment and of an adapter that differs from the base."""
    config = read_config(AGENT)
    start = init_lora(config, 4, 8.0, key=jax.random.key(SEED))
    noise = np.random.default_rng(SEED)
    lora = LoRA(jax.tree.map(lambda leaf: leaf + 0.05 * noise.standard_normal(leaf.shape), start.weights), start.scale)
    save_peft(lora, config, tmp_path / "adapter" / "peft", revision(AGENT))
    adapter = AdapterManifest(
        name="newcomer",
        capabilities=(),
        environments=(),
        base=revision(AGENT),
        rank=4,
        alpha=8.0,
        target_modules=tuple(lora.targets),
        peft="peft",
        files=peft_checksums(tmp_path / "adapter" / "peft"),
        checkpoint="checkpoints",
        steps=0,
        rollouts=0,
        seed=0,
    )
    write_document(tmp_path / "adapter" / "adapter.json", adapter)
    environment = EnvironmentManifest(
        name="sums",
        capability="compute_over_values",
        target="helpdesk",
        designer="rules",
        design=Design(
            entry_point="trace_jax.environments.helpdesk.practice.compute_over_values:ComputeOverValues", parameters={}
        ),
        gates=(),
        calibration=None,
        rollouts=0,
    )
    write_document(tmp_path / "environment.json", environment)
    return tmp_path / "environment.json", tmp_path / "adapter" / "adapter.json"


def test_an_adapter_plays_a_synthesised_environment(trained: tuple[Path, Path], tmp_path: Path) -> None:
    environment, adapter = trained
    workdir = tmp_path / "run"
    flags = (f"--environment={environment}", f"--adapter={adapter}", "--split=held_out")
    done = rollout(workdir, *flags, "--config.target.held_out_tasks=2")
    assert done.returncode == 0, done.stderr
    played = episodes(workdir)
    assert {episode.id for episode in played} == {
        f"newcomer/sums/held_out/{task}/{trial}" for task in (3_000_000, 3_000_001) for trial in (0, 1)
    }
    sampled = {segment.adapter for episode in played for segment in episode.segments if segment.trained}
    assert sampled == {"newcomer"} and {episode.target for episode in played} == {"helpdesk"}
    other = rollout(workdir, flags[0], flags[2], "--config.target.held_out_tasks=2")
    assert other.returncode == 1 and "choose a new work directory" in other.stderr and "adapter was" in other.stderr


def test_an_environment_of_ones_own_is_played_by_its_class(tmp_path: Path) -> None:
    name = "trace_jax.environments.helpdesk.practice.refuse_forbidden:RefuseForbidden"
    assert rollout(tmp_path, f"--environment={name}", tasks=2, trials=1).returncode == 0
    assert {(episode.seed, episode.target) for episode in episodes(tmp_path)} == {(0, name), (1, name)}


SHOP = """
import os
from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation, Outcome

class Shop:
    name, tools = "shop", ()

    def reset(self, seed):
        if str(seed) in os.environ["DOWN"]:
            raise RuntimeError("database is down")
        return Observation((Message(role="user", content=f"order {seed}"),))

    def step(self, message):
        return Observation((), done=True)

    def grade(self):
        return Outcome(1.0)
"""


def test_what_broke_is_told_and_once_mended_played_again_by_the_same_command(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workdir, flag = tmp_path / "run", "--environment=shop:Shop"
    why = "broke, the first with EnvironmentFault: RuntimeError: database is down: fix the cause, and the same command"
    monkeypatch.setenv("DOWN", "012")
    for starts in (1, 2):
        refused = rollout(workdir, flag, trials=1)
        assert refused.returncode == 1 and f"all 3 episodes {why}" in refused.stderr
        assert (workdir / "trajectories.jsonl").read_bytes().count(b"\n") == 3 * starts
    monkeypatch.setenv("DOWN", "1")
    partly = rollout(workdir, flag, trials=1)
    assert partly.returncode == 0 and "3 episodes, 2 passed, 1 broken, mean reward 1.000" in partly.stdout
    assert "the first error is EnvironmentFault" in partly.stdout
    monkeypatch.setenv("DOWN", "")
    mended = rollout(workdir, flag, trials=1)
    assert mended.returncode == 0 and "3 episodes, 3 passed, 0 broken" in mended.stdout
    assert "rollouts of shop:Shop: 3/3" in mended.stderr and len(mended.stdout.splitlines()) == 1
    assert sorted(episode.seed for episode in episodes(workdir) if not episode.broken) == [0, 1, 2]

    words = [f"--workdir={tmp_path / 'out'}", f"--config.source.path={workdir / 'trajectories.jsonl'}"]
    done = run_program("launch.analyze", "--config=configs/quickstart.py", *words)
    assert "3 passed, 0 failed, 0 broken." in done.stdout, done.stderr


@pytest.mark.parametrize(
    "flags,words",
    [
        (("--environment=shop",), "no target 'shop': known are agentdojo"),
        (("--environment=trace_jax.telemetry.progress:Progress",), "has no tasks"),
        (("--environment=nowhere.json",), "nowhere.json: no such file"),
        (("--adapter=nowhere/adapter.json",), "nowhere/adapter.json: no such file"),
        (("--config.rollout.trials=0",), "rollout.trials is 0"),
        (("--config.target.train_tasks=0",), "target.train_tasks is 0: it should be greater than or equal to 1"),
        (("--config.base.path=nowhere",), "nowhere/config.json is missing"),
    ],
)
def test_what_cannot_be_played_is_one_line_and_leaves_nothing(tmp_path: Path, flags, words) -> None:
    refused = rollout(tmp_path / "run", *flags)
    assert refused.returncode == 1 and words in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_the_configuration(tmp_path: Path) -> None:
    done = rollout(tmp_path / "run", "--dry_run", "--config.rollout.temperature=0.25")
    assert done.returncode == 0 and "temperature: 0.25" in done.stdout and not (tmp_path / "run").exists()
