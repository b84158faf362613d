"""launch.rollout by an endpoint, as a user starts it: played, broken, played again, analysed, and never trained on."""

import subprocess
from pathlib import Path

import pytest
from programs import run_program
from scripted_endpoint import Endpoint, refusal, served  # noqa: F401 (fixture)

from trace_jax.contract.files import read_records
from trace_jax.contract.trajectory import Trajectory

ROOT = Path(__file__).parents[2]
KEY = "sk-a-secret-of-the-test"


def program(name: str, *flags: str, config: str = "endpoint") -> subprocess.CompletedProcess[str]:
    flags = f"--config=configs/{config}.py", *flags
    return run_program(f"launch.{name}", *flags, env={"OPENAI_API_KEY": KEY})


def chat(url: str, workdir: Path, *flags: str) -> tuple[str, ...]:
    sizes = ("--config.target.train_tasks=6", "--config.rollout.trials=1")
    return (f"--config.engine.url={url}", "--config.engine.model=m", f"--workdir={workdir}", *sizes, *flags)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_an_endpoint_plays_a_target(served: Endpoint, workdir: Path, tmp_path: Path) -> None:  # noqa: F811
    prices = ("--config.engine.prompt_price=1", "--config.engine.completion_price=4")
    served.script = [refusal(400, f"no such field, Bearer {KEY}")]
    first = program("rollout", *chat(served.url, workdir, *prices))
    assert first.returncode == 0, first.stderr
    assert "6 episodes" in first.stdout and ", 1 broken, " in first.stdout
    assert "the first error is LLMError: " in first.stdout and "no such field, Bearer ***" in first.stdout
    sent = len(served.bodies)
    host = served.url.split("/")[2]
    assert f"m@{host}: {sent - 1} answers, 0 retries, 1 given up, {7 * (sent - 1)} + {3 * (sent - 1)} tokens; $" in (
        first.stdout
    )
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"

    again = program("rollout", *chat(served.url, workdir))
    assert again.returncode == 0 and ", 0 broken, " in again.stdout and "cost unknown" in again.stdout
    assert len(served.bodies) > sent
    sent = len(served.bodies)
    assert program("rollout", *chat(served.url, workdir)).returncode == 0 and len(served.bodies) == sent
    episodes = list(read_records(workdir / "trajectories.jsonl", Trajectory))
    assert len(episodes) == 7 and sum(episode.broken for episode in episodes) == 1
    assert {episode.policy.base for episode in episodes} == {f"m@{host}"}
    assert not any(episode.segments for episode in episodes)
    for path in workdir.rglob("*"):
        assert path.is_dir() or KEY not in path.read_text()

    source = f"--config.source.path={workdir / 'trajectories.jsonl'}"
    analysed = program("analyze", f"--workdir={tmp_path / 'out'}", source, "--config.analysis.runs=2", config="base")
    assert analysed.returncode == 0 and " 0 broken." in analysed.stdout, analysed.stderr

    other = program("rollout", *chat(served.url, workdir, "--config.engine.model=other"))
    assert other.returncode == 1 and "choose a new work directory" in other.stderr


@pytest.mark.parametrize(
    "name,flags,words",
    [
        ("rollout", ("--adapter=nowhere.json",), "nowhere.json: no such file"),
        ("rollout", ("--config.engine.model=",), "engine.model is empty"),
        ("rollout", ("--config.engine.url=http://me:pw@x/v1",), "engine.url holds credentials"),
        ("train", ("--target=helpdesk",), "engine.kind is chat: an endpoint tells no tokens"),
        ("pipeline", (), "engine.kind is chat: an endpoint tells no tokens"),
    ],
)
def test_what_cannot_be_done_is_one_line(workdir: Path, name: str, flags: tuple[str, ...], words: str) -> None:
    done = program(name, *chat("http://127.0.0.1:9/v1", workdir, *flags))
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert "pw" not in done.stderr
