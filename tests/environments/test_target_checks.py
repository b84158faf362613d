"""Claims: each fault of a target fails the line that is about it, with a remedy; a sound target fails none."""

import itertools
import json
import os
import subprocess
import sys
from random import Random

import pytest
from programs import run_program

from examples.calendar import Calendar, calendar
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments import kit
from trace_jax.environments.checks import target as checks
from trace_jax.environments.checks.finding import Finding
from trace_jax.environments.checks.quick import quick_findings, require_sound
from trace_jax.environments.checks.scripted import Played, Player, at_random, bad_calls, do_nothing, play
from trace_jax.environments.checks.target import bad_calls_answered, check_all, fingerprints
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError

CALENDAR = "examples.calendar:calendar"
CHECKS = [
    "task ids", "splits not empty", "splits disjoint", "tool schemas", "result schemas", "episodes play",
    "answers fit results", "bad calls answered", "deterministic", "episodes apart", "solutions earn 1",
    "do-nothing, train", "do-nothing, held_out", "random, train", "random, held_out", "speed",
]  # fmt: skip


class Faulty(kit.Target):
    """The calendar, with another environment class."""

    def __init__(self, environment: type[Calendar] = Calendar, train: int = 4, held_out: int = 4) -> None:
        super().__init__(environment, train=train, held_out=held_out)


class ByName(Faulty):
    """Its tasks are names."""

    def tasks(self, split):
        return tuple(f"{split}/{number}" for number in range(4))


class Twice(Faulty):
    def tasks(self, split):
        return ("a", "a")


class Empty(Faulty):
    def tasks(self, split):
        return (1, 2) if split == "train" else ()


class Overlapping(Faulty):
    def tasks(self, split):
        return (0, 1)

    def environment(self, split):
        return super().environment("train")


class BadSchema(Faulty):
    def environment(self, split):
        made = super().environment(split)
        made.tools = (*made.tools[:-1], made.tools[-1].replace(parameters={"type": "objekt"}))
        return made


class NoResults(Faulty):
    def __init__(self):
        super().__init__()
        self.results = None


class OneMissing(Faulty):
    def __init__(self):
        super().__init__()
        self.results = {name: schema for name, schema in self.results.items() if name != "move"}


class OtherResults(Faulty):
    def __init__(self):
        super().__init__()
        self.results = {name: {"type": "integer"} for name in self.results}


class Broken(Faulty):
    def environment(self, split):
        raise ConnectionError("no server\nat all")


class Raising(Calendar):
    def step(self, message):
        raise ValueError("out of order")


class Forgetful(Calendar):
    """Answers all calls of a message by one message."""

    def step(self, message):
        observation = super().step(message)
        return Observation(observation.messages[:1], observation.done)


class Overpaid(Calendar):
    def grade(self):
        return Outcome(float("nan"))


class Generous(Calendar):
    def checks(self):
        return {"anything": True}


class Mistaken(Calendar):
    def solution(self):
        return super().solution()[:1]


class Silent(Calendar):
    """A bad call is answered as if it were a good one."""

    def step(self, message):
        observation = super().step(message)
        return Observation(
            tuple(m.replace(content="true") if "error" in (m.content or "") else m for m in observation.messages),
            observation.done,
        )


class Clock(Calendar):
    """Every process, and every episode, draws anew."""

    count = itertools.count()

    def draw(self, rng: Random):
        return super().draw(Random(f"{next(self.count)}"))


class Hashed(Calendar):
    """The order of a set of texts differs between processes, and nowhere in one."""

    def draw(self, rng: Random):
        return super().draw(Random(f"{rng.random()} {list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})}"))


class Shared(Calendar):
    """The replies of all episodes are kept in one list."""

    common: list[str] = []

    def reset(self, task):
        observation = super().reset(task)
        self.common.clear()
        return observation

    def step(self, message: Message):
        self.common.append("x")
        observation = super().step(message)
        heard = f"({len(self.common)} so far)"
        return Observation(
            tuple(m.replace(content=f"{m.content} {heard}") if m.role == "user" else m for m in observation.messages),
            observation.done,
        )


@pytest.fixture
def played_here(monkeypatch):
    """For tests of another line than "deterministic": what the other process would do is done in this one."""

    def run(command, *, input, **_):
        chosen = json.loads(input)["chosen"]
        return subprocess.CompletedProcess(command, 0, json.dumps(fingerprints(here[-1], chosen)), "")

    here: list[kit.Target] = []
    check = checks.deterministic
    monkeypatch.setattr(checks.subprocess, "run", run)
    monkeypatch.setattr(checks, "deterministic", lambda target, *rest: here.append(target) or check(target, *rest))


def findings(target, name="target", parameters=None, tasks: int = 4) -> list[Finding]:
    settings = TargetSettings(environment=name, parameters=json.dumps(parameters or {}))
    return list(check_all(target, settings, tasks, lambda done, total: None))


def failing(found: list[Finding]) -> dict[str, str]:
    assert all(finding.remedy for finding in found if finding.verdict == "fail")
    assert not any("\n" in finding.detail for finding in found)
    return {finding.check: finding.detail for finding in found if finding.verdict == "fail"}


def test_a_sound_target_fails_no_line():
    found = findings(calendar(train=6, held_out=3), "examples.calendar:calendar", {"train": 6, "held_out": 3})
    assert [finding.check for finding in found] == CHECKS and failing(found) == {}
    assert found[1].detail == "6 train, 3 held_out" and "steps/s" in found[-1].detail
    assert (
        "passes 0 of 4 (the target has 6)" in {finding.check: finding.detail for finding in found}["do-nothing, train"]
    )


def test_tasks_by_name_are_sound_too():
    found = findings(ByName(), f"{__name__}:ByName")
    assert failing(found) == {} and found[0].detail == "unique, str"


@pytest.mark.parametrize(
    ("target", "check", "words"),
    [
        (Twice, "task ids", "its train tasks hold 'a' twice"),
        (Empty, "splits not empty", "held_out has no task"),
        (Overlapping, "splits disjoint", "task 0 of the split train is task 0 of held_out too"),
        (BadSchema, "tool schemas", "invite: its parameters have type 'objekt'"),
        (NoResults, "result schemas", "results is 'None'"),
        (OneMissing, "result schemas", "move has no entry"),
        (OtherResults, "answers fit results", "which results do not allow"),
        (Broken, "splits disjoint", "ConnectionError: no server at all"),
        (Raising, "episodes play", "task 0: ValueError: out of order"),
        (Forgetful, "episodes play", "were answered by tool messages for"),
        (Overpaid, "episodes play", "reward nan is not in [0, 1]"),
    ],
)
def test_what_the_quick_half_finds_ends_the_pipeline_before_it_begins(target, check, words, played_here):
    made = Faulty(target) if issubclass(target, Calendar) else target()
    if target is Broken:  # a target that cannot be opened says so wherever it is tried
        check = "tool schemas"
    if target is not Forgetful:  # which two calls in one message show
        found = failing(list(quick_findings(made, "target")))
        assert words in found[check]
        with pytest.raises(UserError, match="target 'target': .*launch.check_target tells more"):
            require_sound(made, "target")
    assert words in failing(findings(made))[check]


def test_one_broken_task_does_not_keep_the_pipeline_from_the_others(played_here):
    class Odd(Calendar):
        def reset(self, task):
            if task == 0 and self.source == "train":
                raise ValueError("odd")
            return super().reset(task)

    require_sound(Faulty(Odd), "target")
    assert failing(findings(Faulty(Odd)))["episodes play"].startswith("task 0: ValueError: odd (and 2 more)")


@pytest.mark.parametrize(
    ("environment", "check", "words"),
    [
        (Silent, "bad calls answered", "a bad call of no_such_tool was answered 'true', which tells no error"),
        (Clock, "deterministic", "train task 0 differs when it is played again"),
        (Shared, "episodes apart", "differs while another episode is played"),
        (Generous, "do-nothing, train", "passes 4 of 4"),
        (Mistaken, "solutions earn 1", "train task 0: its solution earns 0"),
    ],
)
def test_what_only_playing_finds(environment, check, words, played_here):
    found = failing(findings(Faulty(environment), f"{__name__}:Faulty"))
    assert words in found[check]
    if environment in (Generous, Mistaken):
        require_sound(Faulty(environment), "target")


def test_an_answer_tells_of_an_error_in_the_words_that_the_analysis_knows():
    def answered(content: str) -> Finding:
        exchange = (ToolCall(id="1", name="no_such_tool", arguments={}), Message(role="tool", content=content))
        return bad_calls_answered([Played(0, exchanges=[exchange])])

    assert answered("Invalid tool no_such_tool provided.").verdict == "ok"  # AgentDojo's words
    assert answered('{"error": "no tool"}').verdict == "ok" and answered("fine").verdict == "fail"


def hashed() -> kit.Target:
    return Faulty(Hashed)


def test_an_episode_that_depends_on_the_process_is_found():
    found = failing(findings(hashed(), f"{__name__}:hashed"))
    assert found == {"deterministic": "train task 0 differs in another process"}


def test_a_target_that_another_process_cannot_load_is_named():
    found = failing(findings(Faulty(), "no_such_module:Target"))
    assert "another process could not play it" in found["deterministic"] and "no_such_module" in found["deterministic"]


def test_tasks_that_pass_without_an_agent_are_named_and_no_fault(played_here):
    class Easy(Calendar):
        def checks(self):
            return {"odd": len(self.scenario.requests[0].text) % 3 == 0}

    found = {finding.check: finding for finding in findings(Faulty(Easy, 40, 40), tasks=40)}
    note = found["do-nothing, train"]
    passed = [
        task for task in range(40) if play(lambda: Faulty(Easy).environment("train"), task, do_nothing).outcome.reward
    ]
    assert note.verdict == "note" and 0 < len(passed) < 40
    assert f"passes {len(passed)} of 40: {', '.join(map(str, passed[:6]))}" in note.detail


def test_two_players_take_turns():
    target = calendar()
    players = [Player(lambda: target.environment("train"), task, at_random()) for task in (0, 1)]
    while any([player.advance() for player in players]):
        pass
    alone = [play(lambda: target.environment("train"), task, at_random()) for task in (0, 1)]
    assert [player.played.fingerprint() for player in players] == [each.fingerprint() for each in alone]
    assert alone[0].fingerprint() != alone[1].fingerprint()
    bad = play(lambda: target.environment("train"), 0, bad_calls)
    assert len(bad.exchanges) == 6 and all("error" in answer.content for _, answer in bad.exchanges)


def check_program(*flags: str) -> "subprocess.CompletedProcess[str]":
    return run_program("launch.check_target", *flags, env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


def test_the_program_prints_a_table_and_ends_with_the_status_of_its_worst_line(tmp_path):
    found = tmp_path / "found.json"
    good = check_program(f"--target={CALENDAR}", '--parameters={"train": 3}', "--tasks=2", f"--json={found}")
    assert good.returncode == 0, good.stderr
    assert "3 train, 60 held_out" in good.stdout
    assert [finding["check"] for finding in json.loads(found.read_text())] == CHECKS
    bad = check_program(f"--target={__name__}:Empty")
    assert bad.returncode == 1 and "held_out has no task" in bad.stdout
    assert bad.stderr.strip().splitlines()[-1].endswith("1 of 2 lines fail, first 'splits not empty'")


def test_a_target_in_workers_is_checked_alike():
    done = check_program(f"--target={CALENDAR}", "--workers=2", "--tasks=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 episodes" not in done.stdout and "6 episodes, in two processes" in done.stdout
    lost = check_program(f"--target={CALENDAR}", "--workers=1", "--python=/no/such/python")
    assert lost.returncode == 1 and "/no/such/python" in lost.stderr


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ((), 2, "--target is missing"),
        (("--target=nothing",), 1, "no target 'nothing': known are agentdojo, bfcl, helpdesk, helpdesk_short"),
        (("--target=helpdesk", "--parameters=[]"), 1, "target.parameters is '[]': it should be a JSON object"),
        (("--target=helpdesk", '--parameters={"a": 1}'), 1, "got an unexpected keyword argument 'a'"),
        (
            (f"--target={CALENDAR}", '--parameters={"train": "3"}'),
            1,
            "parameter train is '3': it should be a valid int",
        ),
    ],
)
def test_bad_input_is_one_line(flags, status, words):
    done = check_program(*flags)
    assert done.returncode == status and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
