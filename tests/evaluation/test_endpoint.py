"""An endpoint is scored as the base is, by messages alone."""

from dataclasses import replace

import pytest
from etils import epath
from scripted_endpoint import said, served
from tiny_adapters import settings_of

from evaluation.evaluate import subjects_of
from evaluation.models import Models
from evaluation.scoring import score, source_of
from trace_jax.engines.settings import EngineSettings
from trace_jax.errors import UserError
from trace_jax.models.settings import BaseModelSettings
from trace_jax.rollout.settings import EvaluationSettings, RolloutSettings
from trace_jax.telemetry.progress import Progress

__all__ = ["served"]


@pytest.fixture
def settings(served, tmp_path):
    return replace(
        settings_of(tmp_path),
        base=BaseModelSettings(),
        engine=EngineSettings(kind="chat", url=served.url, model="m", capacity=4096),
        rollout=RolloutSettings(max_turns=3, max_turn_tokens=64, max_episode_tokens=4096),
        evaluation=EvaluationSettings(trials=2),
    )


def evaluate(settings, out, **subjects):
    given = {"adapters": (), "merges": (), "tables": (), **subjects}
    return score(
        Models(settings), source_of(settings, "held_out"), subjects_of(**given), [0.0, 1.0], out, progress=Progress()
    )


def test_an_endpoint_is_scored_with_its_own_counts(served, settings, tmp_path):
    out = epath.Path(tmp_path / "out")
    served.reply = lambda body: said(None, calls=[("get_ordr", "{}"), ("get_order", "torn")], usage=(70, 30))
    report = evaluate(settings, out)
    assert [(m.method, m.temperature) for m in report.methods] == [("base", 0.0), ("base", 1.0)]
    cold, hot = report.methods
    assert (cold.effort.episodes, hot.effort.episodes) == (3, 6) and hot.effort.turns == 3.0
    assert hot.errors.terminations == {"max_turns": 6} and hot.errors.calls == 6 * 3 * 2
    assert hot.errors.unknown_tools == {"get_ordr": 18} and hot.errors.malformed_calls == {"get_order": 18}
    assert hot.effort.completion_tokens == 6 * 3 * 30
    assert {body["temperature"] for body in served.bodies} == {0.0, 1.0}
    assert len({body["seed"] for body in served.bodies if body["temperature"] == 1.0}) >= 6
    assert report.do_nothing.pass_rate.mean == 0.0
    asked = len(served.bodies)
    assert evaluate(settings, out) == report and len(served.bodies) == asked
    other = replace(settings, engine=replace(settings.engine, model="another"))
    with pytest.raises(UserError, match="engine.model was 'm', is 'another'"):
        evaluate(other, out)


def test_an_endpoint_takes_no_adapters(settings, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "a" / name).write_text("{}")
    with pytest.raises(UserError, match="engine.kind is chat: an endpoint tells no tokens"):
        evaluate(settings, epath.Path(tmp_path / "out"), adapters=[str(tmp_path / "a")])
