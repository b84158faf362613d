"""Stages that are started again after something broke, and a router that has no gate to learn."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from adapter_files import FILES
from etils import epath

from configs.quickstart import get_config
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.practice.desk import PracticeDesk
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.errors import UserError
from trace_jax.pipeline import router_prompts
from trace_jax.pipeline.method import Pipeline
from trace_jax.routing.classifier import ClassifierRouter
from trace_jax.run_settings import read_settings

ROOT = Path(__file__).parents[2]


def test_base_rollouts_that_broke_are_played_again_until_they_are_analysed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    config, reset = get_config().copy_and_resolve_references(), Desk.reset
    config.target.train_tasks = 10
    down: set[int] = set()

    def faulty(desk: Desk, seed: int):
        if seed in down:
            raise RuntimeError("database is down")
        return reset(desk, seed)

    monkeypatch.setattr(Desk, "reset", faulty)

    def start(broken=()):
        down.clear()  # a target that is down from the start is refused before anything is played
        pipeline = Pipeline(read_settings(config), epath.Path(tmp_path))
        down.update(broken)
        return pipeline.find_capabilities()

    with pytest.raises(UserError, match="20 trajectories, none of them graded: .*database is down"):
        start(range(100))
    found = start([7])
    assert found.report.broken == 2 and found.report.passed + found.report.failed == 18
    recorded = (tmp_path / "base_rollouts.jsonl").read_bytes()
    assert recorded.count(b"\n") == 40
    assert start() == found and (tmp_path / "base_rollouts.jsonl").read_bytes() == recorded


class Unsound(Helpdesk):
    """A target that says nothing of the results of one tool."""

    results = {name: schema for name, schema in Helpdesk.results.items() if name != "refund"}


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"training.max_rollouts": 9}, "training.max_rollouts is 9: the pipeline sets it"),
        ({"training.max_steps": None, "training.max_rollouts": 9}, "training.max_steps is not set"),
        ({"rollout.temperature": 0.0}, "rollout.temperature is 0: greedy rollouts have no distribution to train"),
        ({"synthesis.designer": "llm"}, "llm.url '' names no endpoint"),
        ({"analysis.analyst": "llm"}, "analysis.analyst is llm, and there is no endpoint"),
        ({"synthesis.candidates": 2}, "synthesis.candidates is 2: designer 'rules' makes one design at a time"),
        ({"base.path": "nowhere"}, "nowhere/config.json is missing"),
        ({"target.environment": "shop"}, "no target 'shop'"),
        (
            {"target.environment": f"{__name__}:Unsound"},
            "result schemas: refund has no entry: .*check_target tells",
        ),
        ({"target.parameters": '{"size": 3}'}, "target 'helpdesk': got an unexpected keyword argument 'size'"),
        ({"routing.router": "oracle"}, "no router 'oracle': known are classifier, gate"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_the_work_directory_is_made(tmp_path, changes, words) -> None:
    config = get_config()
    config = config.copy_and_resolve_references()
    config.base.path = str(ROOT / config.base.path)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=words):
        Pipeline(read_settings(config), epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", ["no prompts", "one prompt"])
def test_where_no_gate_can_be_learnt_the_classifier_routes_and_says_so(tmp_path, monkeypatch, caplog, fault) -> None:
    monkeypatch.chdir(ROOT)
    pipeline = Pipeline(read_settings(get_config()), epath.Path(tmp_path / "run"))
    manifest = EnvironmentManifest(
        name="refuse_forbidden", capability="refuse_forbidden", target="helpdesk", designer="rules", gates=(),
        design=Helpdesk().practice_for("refuse_forbidden").first, calibration=None, rollouts=0,
    )  # fmt: skip
    adapter = AdapterManifest(
        name="refuse", capabilities=("refuse_forbidden",), environments=("refuse_forbidden",), rank=1, alpha=1.0,
        base=pipeline.base.revision, target_modules=("q_proj",), peft="peft", files=FILES, checkpoint="c", steps=1,
        rollouts=1, seed=0,
    )  # fmt: skip
    if fault == "no prompts":
        monkeypatch.setattr(router_prompts, "factory_of_design", lambda design, own, sandbox: nullcontext(object))
    else:
        prompts = PracticeDesk.prompts
        monkeypatch.setattr(PracticeDesk, "prompts", lambda self, seed, other=None: prompts(self, 0, other))
    candidates = [Candidate(name="refuse_forbidden", description="d")]
    router = pipeline.train_router([manifest], [adapter], candidates, 0)
    assert isinstance(router, ClassifierRouter) and router.table.router == "classifier"
    assert not (tmp_path / "run/routing/gate.safetensors").exists()
    assert "the classifier routes" in caplog.text
    assert isinstance(pipeline.train_router([manifest], [adapter], candidates, 0), ClassifierRouter)
