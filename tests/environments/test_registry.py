"""Claims: names, entry points of installed packages and module:Class all work; anything else is refused in one line."""

import sys
import time
import types

import pytest

from trace_jax.contract.environment import Design
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.draw import draw_task
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.helpdesk.tools import RESULTS
from trace_jax.environments.protocol import seed_of
from trace_jax.environments.registry import (
    ENVIRONMENTS,
    TARGETS,
    environment_factory,
    load_environment,
    load_target,
)
from trace_jax.errors import UserError

VERIFY = "trace_jax.environments.helpdesk.practice.verify_before_acting:VerifyBeforeActing"
SHOP = """
from trace_jax.environments.helpdesk.practice import VerifyBeforeActing

class Shop(VerifyBeforeActing):
    pass
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with one environment and one target among its entry points, as an installer lays it out."""
    (tmp_path / "toyshop.py").write_text(SHOP)
    info = tmp_path / "toyshop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyshop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENVIRONMENTS.group}]\ntoyshop = toyshop:Shop\n"
        f"[{TARGETS.group}]\ndesk = trace_jax.environments.helpdesk.target:Helpdesk\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_built_in_target_is_known_by_name():
    assert isinstance(load_target("helpdesk"), Helpdesk)
    assert "helpdesk" in TARGETS.names()


def test_entry_points_of_an_installed_package(installed):
    assert isinstance(load_target("desk"), Helpdesk)
    assert set(TARGETS.names()) >= {"desk", "helpdesk"}
    assert load_environment("toyshop", {"routine": 0}).name == "verify_before_acting"
    assert environment_factory(Design(entry_point="toyshop", parameters={}))().reset(3).messages


def test_module_and_class_with_parameters():
    environment = load_environment(VERIFY, {"exercised": 2, "routine": 0})
    assert len(environment.reset(5).messages) == 2
    assert isinstance(load_target("trace_jax.environments.helpdesk.target:Helpdesk"), Helpdesk)


@pytest.mark.parametrize(
    ("name", "parameters", "wanted"),
    [
        ("tau9", {}, ["'tau9'", "module:NAME"]),
        ("no_such_module:X", {}, ["no_such_module", "install it"]),
        (":X", {}, ["':X'"]),
        (
            "trace_jax.environments.helpdesk.practice.verify_before_acting:Nothing",
            {},
            ["'Nothing'", "VerifyBeforeActing"],
        ),
        (VERIFY, {"colour": 1}, ["colour", "exercised"]),
        (VERIFY, {"exercised": 5}, ["exercised=5", "at most 2"]),
        ("trace_jax.environments.helpdesk.database:Database", {}, ["has no reset"]),
    ],
)
def test_what_cannot_be_made_is_named_with_the_remedy(name, parameters, wanted):
    with pytest.raises(UserError) as caught:
        load_environment(name, parameters)
    assert all(part in str(caught.value) for part in wanted), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_target_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="no target 'helpdsk': known are .*helpdesk"):
        load_target("helpdsk")


def test_a_design_outside_the_package_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Env: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for entry_point in ("stranger:Env", "trace_jaxer:Env", "trace_jax_evil.x:Env"):
        with pytest.raises(UserError, match="outside trace_jax.*sandbox"):
            environment_factory(Design(entry_point=entry_point, parameters={}))
    assert not (tmp_path / "ran").exists()


def target_class(train: tuple, held_out: tuple, results: object = RESULTS, told_apart: bool = False) -> type:
    """A target with these tasks; its environment ignores the split unless they are ``told_apart``."""

    class Splits(Helpdesk):
        def tasks(self, split):
            return train if split == "train" else held_out

        def environment(self, split):
            source = split if told_apart else "train"
            return Desk(self.name, lambda task: draw_task(source, seed_of(task)))

    Splits.results = results
    return Splits


def load(monkeypatch, target: type):
    monkeypatch.setitem(sys.modules, "splits", types.SimpleNamespace(Splits=target))
    return load_target("splits:Splits")


@pytest.mark.parametrize(
    ("train", "held_out", "results", "words"),
    [
        (
            (1, 2, 3),
            (3, 4, 5),
            RESULTS,
            "task 3 of the split train is task 3 of held_out too: give the",
        ),
        ((0,), (0,), RESULTS, "task 0 of the split train"),
        (tuple(range(1000)), tuple(range(1000)), RESULTS, "task 0 of the split train"),
        ((1.5,), (2,), RESULTS, "its train task 1.5 is neither an integer nor a printable text"),
        ((1,), (2, True), RESULTS, "its held_out task True is neither"),
        ((1,), ("a\nb",), RESULTS, r"its held_out task 'a\\nb' is neither"),
        ((1, "1"), (2,), RESULTS, "its train tasks hold '1' twice"),
        (("a", "b"), ("b",), RESULTS, "task 'b' of the split train is task 'b' of held_out too"),
        ((1,), (2,), None, "has no results"),
        ((1,), (2,), ["get_order"], "has no results"),
    ],
)
def test_a_target_that_breaks_the_protocol_is_refused_when_it_is_loaded(train, held_out, results, words, monkeypatch):
    with pytest.raises(UserError, match=f"target 'splits:Splits': {words}"):
        load(monkeypatch, target_class(train, held_out, results))


def test_splits_that_are_disjoint_or_number_different_tasks_alike_are_loaded(monkeypatch):
    started = time.process_time()
    assert load(monkeypatch, target_class(tuple(range(100_000)), tuple(range(100_000, 200_000))))
    assert load(monkeypatch, target_class((), (1,)))
    alike = tuple(range(100_000))
    assert load(monkeypatch, target_class(alike, alike, told_apart=True))
    assert time.process_time() - started < 2


def test_an_environment_that_cannot_be_opened_is_left_to_its_episodes(monkeypatch):
    class Closed(target_class((1,), (1,))):
        def environment(self, split):
            raise ConnectionError("down")

    assert load(monkeypatch, Closed)


def practice_design(target: str, **parameters) -> Design:
    own = {"target": target, "kinds": ["book"], "exercised": 1, "routine": 0, "contrast_every": 0, **parameters}
    return Design(entry_point="trace_jax.environments.practice.environment:PracticeEnvironment", parameters=own)


def test_a_design_may_name_the_run_s_own_target_and_no_other(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Target: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = Design(entry_point="examples.calendar:calendar", parameters={"train": 5})
    made = environment_factory(practice_design(own.entry_point, target_parameters={"train": 5}), own)()
    assert made.reset(1).messages[0].role == "system"
    for design, target, words in (
        (practice_design("stranger:Target"), own, "is of target 'stranger:Target', and the run's own is 'examples"),
        (practice_design("stranger:Target"), None, "the run's own is none"),
        (practice_design("helpdesk"), own, "is of target 'helpdesk', and the run's own is"),
        (practice_design(own.entry_point), own, "own is 'examples.calendar:calendar' with {'train': 5}: a design may"),
        (practice_design(own.entry_point, target_parameters={"train": 6}), own, "with {'train': 6}, and"),
        (practice_design(own.entry_point, target_parameters=["train"]), own, r"with \['train'\], and"),
        (practice_design(["stranger:Target"]), own, "is of target"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            environment_factory(design, target)
        assert "\n" not in str(caught.value) and "set target.environment" in str(caught.value)
    assert not (tmp_path / "ran").exists()
