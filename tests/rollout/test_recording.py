"""A collection over several starts: what is graded stays, what broke is played again, once a start."""

from pathlib import Path

import pytest
from test_agent_loop import ROLLOUT, Counter, spec

from trace_jax.contract.files import read_records
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.protocol import Observation
from trace_jax.rollout.recording import Recording


class Shop(Counter):
    """Breaks on odd seeds while its database is down; ``played`` are the seeds that it was asked for."""

    down = True
    played: list[int] = []

    def reset(self, seed: int) -> Observation:
        self.played.append(seed)
        if self.down and seed % 2:
            raise RuntimeError("database is down")
        return super().reset(seed)


@pytest.fixture
def start(decoder, config, renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``start(recording)``: the seeds that it played, the trajectories that it returned."""
    engine = EmbeddedEngine(decoder, config, renderer.stop_token_ids, EngineSettings(slots=6, capacity=256))

    def collect(recording: Recording) -> tuple[list[int], list[Trajectory]]:
        monkeypatch.setattr(Shop, "played", [])
        specs = [spec(number, Shop) for number in range(6)]
        found = recording.collect(
            specs, engine=engine, renderer=renderer, settings=ROLLOUT, base="base0", on_episode=lambda _: None
        )
        return Shop.played, found

    return collect


def test_what_broke_is_played_again_once_a_start_until_it_is_graded(start, tmp_path, monkeypatch) -> None:
    path = tmp_path / "episodes.jsonl"
    played, found = start(Recording(path))
    assert sorted(played) == [0, 1, 2, 3, 4, 5] and [episode.broken for episode in found] == [False, True] * 3
    played, again = start(Recording(path))
    assert sorted(played) == [1, 3, 5] and [episode.broken for episode in again] == [False, True] * 3
    assert again[::2] == found[::2] and {episode.reward for episode in again[1::2]} == {None}

    monkeypatch.setattr(Shop, "down", False)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole[:-1].rfind(b"\n") + 100])  # killed as it wrote the last of them
    played, mended = start(Recording(path))
    assert sorted(played) == [1, 3, 5] and not any(episode.broken for episode in mended) and mended[::2] == found[::2]
    assert start(Recording(path)) == ([], mended)
    assert len(list(read_records(path, Trajectory))) == 6 + 2 + 3  # what broke stays on record


def test_broken_episodes_that_others_have_read_stay(start, tmp_path, monkeypatch) -> None:
    path = tmp_path / "episodes.jsonl"
    _, found = start(Recording(path))
    monkeypatch.setattr(Shop, "down", False)
    assert start(Recording(path, keep_broken=True)) == ([], found)
