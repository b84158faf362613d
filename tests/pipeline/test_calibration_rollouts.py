"""Calibration rollouts that broke and were played again, as the training takes them."""

from pathlib import Path

import pytest
from tiny_chat import *  # noqa: F403 (fixtures)

from trace_jax.contract.environment import Attempt, Design, EnvironmentManifest, calibration_path
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.helpdesk.practice.desk import PracticeDesk
from trace_jax.pipeline.calibration import CalibrationRollouts, calibration_groups
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.run_settings import RunSettings
from trace_jax.session import Base, Session
from trace_jax.synthesis.calibration import calibrate

DESIGN = Design(entry_point="trace_jax.environments.helpdesk.practice.refuse_forbidden:RefuseForbidden", parameters={})
SEEDS, SIZE = (4, 5, 6), 2


def test_of_an_episode_that_was_played_again_only_the_graded_record_is_trained_on(
    decoder, config, renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EmbeddedEngine(decoder, config, renderer.stop_token_ids, EngineSettings(slots=6, capacity=512))
    settings = RunSettings(rollout=RolloutSettings(max_turns=2, max_turn_tokens=8, concurrency=4))
    session = Session(settings, Base(decoder, config, "base0", renderer), engine)
    path = calibration_path(tmp_path, "refuse")
    rollouts = CalibrationRollouts(session, "refuse", Design(entry_point="shop", parameters={}), path, lambda _: None)

    def start() -> list[list[Trajectory]]:
        return rollouts(DESIGN, SEEDS, SIZE)

    with monkeypatch.context() as broken:
        broken.setattr(PracticeDesk, "grade", None)
        assert all(episode.broken for group in start() for episode in group)
    played = start()
    calibration = calibrate([[episode.reward for episode in group] for group in played])
    assert calibration.broken == 0 and path.read_bytes().count(b"\n") == 2 * len(SEEDS) * SIZE
    manifest = EnvironmentManifest(
        name="refuse", capability="refuse", target="shop", designer="rules", design=DESIGN, gates=(), rollouts=6,
        calibration=calibration,
        attempts=(Attempt(round=0, design=DESIGN, gates=(), calibration=calibration, seeds=SEEDS, feedback=""),),
    )  # fmt: skip
    assert [list(group.rollouts) for group in calibration_groups(manifest, tmp_path)] == played
