"""What a user can name to be played."""

import asyncio

import pytest

from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import write_document
from trace_jax.environments.registry import load_target
from trace_jax.environments.source import FIRST_SEED, load_source, target_source
from trace_jax.errors import UserError

FAMILY = "trace_jax.environments.helpdesk.practice.verify_before_acting:VerifyBeforeActing"


def opening(source, task):
    """What a new episode of ``source`` begins with."""

    async def opened():
        return await (await source.host.open()).reset(task)

    return asyncio.run(opened())


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_target_gives_its_own_tasks_by_any_of_its_names(split):
    target = load_target("helpdesk")
    for name in ("helpdesk", "trace_jax.environments.helpdesk.target:Helpdesk"):
        source = load_source(name, split, 5)
        assert source.tasks == target.tasks(split)[:5] and (source.target, source.design) == (name, None)
        theirs = target.environment(split)
        assert opening(source, source.tasks[2]) == theirs.reset(source.tasks[2])
    assert target_source(target, "helpdesk", split, 10**6).tasks == target.tasks(split)


def test_an_environment_is_told_from_a_target_and_is_fresh_every_time():
    source = load_source(FAMILY, "train", 3)
    assert source.tasks == (0, 1, 2) and source.name == FAMILY
    first, second = asyncio.run(source.host.open()), asyncio.run(source.host.open())
    assert first is not second and opening(source, 1) == opening(source, 1)


def first_look(design: Design) -> EnvironmentManifest:
    return EnvironmentManifest(
        name="first_look", capability="verify_before_acting", target="helpdesk", designer="rules", design=design,
        gates=(), calibration=None, rollouts=0,
    )  # fmt: skip


def test_a_manifest_gives_its_design_and_seeds_that_no_stage_has_played(tmp_path):
    design = Design(entry_point=FAMILY, parameters={"routine": 0})
    write_document(tmp_path / "e.json", first_look(design))
    source = load_source(str(tmp_path / "e.json"), "held_out", 2)
    first = FIRST_SEED["held_out"]
    assert (source.name, source.target, source.design) == ("first_look", "helpdesk", design)
    assert source.tasks == (first, first + 1)
    opening(source, first)
    outside = first_look(Design(entry_point="os:system", parameters={}))
    write_document(tmp_path / "outside.json", outside)
    with pytest.raises(UserError, match="lies outside trace_jax"):
        load_source(str(tmp_path / "outside.json"), "train", 2)


@pytest.mark.parametrize("name", ["helpdesk", FAMILY])
def test_no_tasks_are_refused(name):
    with pytest.raises(UserError, match=f"0 train tasks of '{name}'.*: at least 1 is needed"):
        load_source(name, "train", 0)
