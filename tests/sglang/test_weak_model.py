"""SmolLM2 as analyst and designer: a real server holds it to the forms, and a weak model changes nothing.

What it proposes rests on no message, what it labels is no partition, and what it designs is no module that a gate would
see. So nothing is selected and no design is accepted.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from real_server import RealServer, running, sglang_server

from launch.convert_smollm2 import make_model
from trace_jax.analysis.llm.analyst import LanguageModelAnalyst
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.analysis.stage import CALLS, analyse
from trace_jax.contract.capability import (
    Candidate,
    Candidates,
    Interval,
    Label,
    LabelRun,
    PairLabel,
    SelectedCapability,
    Status,
)
from trace_jax.contract.environment import Design
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.trajectory import Message, Policy, Trajectory
from trace_jax.errors import UserError
from trace_jax.llm import LanguageModel, LanguageModelSettings, Prompt, PromptTooLong, StructuredModel, check_model
from trace_jax.synthesis.designers import make_designer
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import synthesise

sys.path.append(str(Path(__file__).parents[1] / "synthesis"))
from lamps_target import lamps  # noqa: E402

pytestmark = pytest.mark.slow  # on a CPU the model writes a few tokens a second

SKILL = "The agent changes a record. It shows the skill if it reads the record first. LACKING if it does not read it."
FROZEN = Candidates(analyst="llm", capabilities=(Candidate(name="read_before_write", description=SKILL),))
OWN = Design(entry_point="lamps_target:lamps", parameters={})
WIDTH = Interval(mean=0.5, low=0.4, high=0.6)


class Answer(BaseModel):
    """Which lamp is on."""

    room: Literal["kitchen", "attic"]
    lamps: int = Field(ge=0, le=9)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    directory = tmp_path_factory.mktemp("smollm2")
    try:
        make_model(directory / "model")
    except UserError as error:
        pytest.skip(str(error))
    flags = ("--served-model-name", "smollm2", "--constrained-json-disable-any-whitespace")
    server = sglang_server(directory / "model", directory / "server.log", *flags, lora=False)
    with running(server) as server:
        yield server


def settings(weak: RealServer | None, **changes: object) -> LanguageModelSettings:
    known = {"model": "smollm2", "temperature": 0.0, "max_tokens": 200, "context_tokens": 8000, "attempts": 2}
    where = {"url": f"{weak.url}/v1", "request_seconds": 600.0, "concurrency": 4} if weak else {"replay": True}
    return LanguageModelSettings(**{**known, **where, **changes})  # type: ignore[arg-type]


def calls(record: Path) -> list[ModelCall]:
    """On file; all were answered and counted."""
    found = list(read_records(record, ModelCall))
    assert found and all(call.answer is not None and call.usage is not None for call in found)
    return found


def whole(call: ModelCall) -> bool:
    """The model ended its answer: it was not cut off."""
    return call.finish_reason == "stop"


def episode(number: int) -> Trajectory:
    passed = number % 2 == 0
    messages = (
        Message(role="system", content="You serve a shop."),
        Message(role="user", content=f"Please cancel my order O{number}."),
        Message(role="assistant", content=f"Order O{number} is {'still there' if passed else 'cancelled now'}."),
    )
    return Trajectory(
        id=f"shop-{number}", target="shop", task=str(number), split="train", seed=number, trial=0,
        policy=Policy(base="b"), messages=messages, reward=float(passed), termination="done",
    )  # fmt: skip


EPISODES = tuple(episode(number) for number in range(12))


class Labeller(LanguageModelAnalyst):
    """Labels with a dictionary that a person wrote."""

    def discover(self, trajectories: Sequence[Trajectory]) -> Candidates:
        return FROZEN


class Person(Labeller):
    """Labels as a person would."""

    def label_runs(
        self, trajectories: Sequence[Trajectory], candidates: Candidates, runs: Sequence[int], seed: int
    ) -> tuple[LabelRun, ...]:
        name = FROZEN.capabilities[0].name
        labels = tuple(
            PairLabel(trajectory=each.id, capability=name, label=Label.PRESENT if each.passed else Label.LACKING)
            for each in trajectories
        )
        ids = tuple(each.id for each in trajectories)
        return tuple(LabelRun(run=run, seed=seed, analyst="llm", trajectories=ids, labels=labels) for run in runs)


def analyst(weak: RealServer | None, directory: Path, kind: type[LanguageModelAnalyst]) -> LanguageModelAnalyst:
    llm = settings(weak)
    analysis = AnalysisSettings(analyst="llm", passes=1, episodes_per_request=4, episode_tokens=300)
    model = StructuredModel(LanguageModel(llm), record=directory / CALLS, replay=llm.replay)
    return kind(model, analysis, llm)


def selected(given: LanguageModelAnalyst, directory: Path) -> Sequence[SelectedCapability]:
    """What the analysis selects; nothing as well if no label run can be used."""
    try:
        return analyse(EPISODES, given, directory, runs=1).selected
    except UserError as error:
        assert "none of 1 label runs can be used" in str(error)
        return ()


def test_a_server_holds_the_model_to_the_form(weak: RealServer, tmp_path: Path) -> None:
    assert "model 'smollm2': offered" in asyncio.run(check_model(LanguageModel(settings(weak)), None))
    record = tmp_path / "calls.jsonl"
    told = Prompt("lamps", "1-00000000", ({"role": "user", "content": "Tell me a story about a lamp in the attic."},))

    async def ask(model: StructuredModel) -> list[Answer]:
        return [await model.ask(told, Answer, stage="lamps", seed=seed) for seed in (1, 2)]

    found = asyncio.run(ask(StructuredModel(LanguageModel(settings(weak)), record=record)))
    assert all(call.form_in == "response_format" and call.repair is None for call in calls(record))
    assert len(calls(record)) == 2 and all(call.usage.prompt_tokens > 10 for call in calls(record))
    assert asyncio.run(ask(StructuredModel(LanguageModel(settings(None)), record=record, replay=True))) == found


def test_a_prompt_beyond_the_context_is_told_apart(weak: RealServer) -> None:
    told = Prompt("lamps", "1-00000000", ({"role": "user", "content": "a lamp " * 9000},))
    model = StructuredModel(LanguageModel(settings(weak)))
    with pytest.raises(PromptTooLong):
        asyncio.run(model.ask(told, Answer, stage="lamps", seed=1))


def test_right_labels_of_the_same_episodes_select_the_capability(tmp_path: Path) -> None:
    """What the next test shows of the weak model is not shown by the episodes."""
    (found,) = selected(analyst(None, tmp_path, Person), tmp_path)
    assert found.capability.name == FROZEN.capabilities[0].name


@pytest.mark.parametrize("kind,stage", [(LanguageModelAnalyst, "discover"), (Labeller, "label")])
def test_a_weak_analyst_selects_nothing(
    weak: RealServer, tmp_path: Path, kind: type[LanguageModelAnalyst], stage: str
) -> None:
    assert not selected(analyst(weak, tmp_path, kind), tmp_path)
    made = calls(tmp_path / CALLS)
    assert {call.stage for call in made} >= {stage}
    kept = [call for call in made if call.form_in == "response_format" and whole(call)]
    assert all(isinstance(json.loads(call.answer or ""), dict) for call in kept)
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / CALLS).rename(again / CALLS)
    assert not selected(analyst(None, again, kind), again)


def test_a_weak_designer_gets_no_design_accepted(weak: RealServer, tmp_path: Path) -> None:
    chosen = SelectedCapability(
        capability=FROZEN.capabilities[0], rank=1, coverage=WIDTH, delta=WIDTH, failed_examples=()
    )

    def run(llm: LanguageModelSettings, directory: Path) -> object:
        designing = SynthesisSettings(designer="llm", max_rounds=1, calibration_groups=2, gate_seeds=2)
        return synthesise(
            chosen,
            designer=make_designer(designing, llm=llm, record=tmp_path / CALLS, seed=0),
            target=lamps(),
            own=OWN,
            rollout=no_rollout,
            settings=designing,
            seed=0,
            directory=directory,
        )

    made = run(settings(weak, max_tokens=64), tmp_path / "first")
    assert isinstance(made, SelectedCapability) and made.status is Status.FAILED
    assert "no environment accepted in 1 rounds" in made.reason and made.rollouts == 0
    assert not (tmp_path / "first" / "read_before_write.json").exists()
    assert len(calls(tmp_path / CALLS)) == 2
    assert run(settings(None, max_tokens=64), tmp_path / "again") == made


def no_rollout(design: Design, seeds: Sequence[int], group_size: int) -> list[list[Trajectory]]:
    raise AssertionError("a design of the weak model reached its calibration")
