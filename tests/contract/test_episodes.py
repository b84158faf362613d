"""Episodes that broke and were played again under their id."""

from pathlib import Path

from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.trajectory import Policy, Trajectory


def episode(name: str, reward: float | None, error: str | None = None) -> Trajectory:
    return Trajectory(
        id=name, target="shop", task="1", split="train", seed=1, trial=0, policy=Policy(base="b"), messages=(),
        reward=reward, error=error, termination="done" if error is None else "error",
    )  # fmt: skip


def test_a_broken_record_counts_until_its_episode_is_graded(tmp_path: Path) -> None:
    first, second = episode("a", None, "down"), episode("a", None, "still down")
    graded, other = episode("a", 0.0), episode("b", 1.0)
    path = tmp_path / "episodes.jsonl"
    for added, left in (
        ([first], [first]),
        ([other, second], [other, second]),
        ([graded], [other, graded]),
        ([first], [other, graded]),  # a second start of that time has ended later
        ([graded], [other, graded, graded]),  # a file that names two episodes alike is the reader's to refuse
    ):
        with JsonLinesWriter(path) as writer:
            writer.extend(added)
        assert list(read_episodes(path)) == left
