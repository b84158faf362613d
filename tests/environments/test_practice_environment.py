"""Claims about environments made from any target's requests: what earns how much, and what cannot be made."""

from random import Random

import pytest
from bank_desk import BankDesk

from examples.calendar import KINDS
from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Message
from trace_jax.environments.practice import PracticeEnvironment, RequestPractice, path
from trace_jax.environments.practice.environment import ROUTINE_COST
from trace_jax.environments.protocol import Outcome, PracticeRequest, PracticeSource, PracticeTask, Prompting
from trace_jax.environments.registry import environment_factory, load_target
from trace_jax.errors import UserError

CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={"train": 20})
BANK = Design(entry_point="bank_desk:bank", parameters={})
PRACTICE = {
    "calendar": RequestPractice(CALENDAR, ("first_free", "refuse_board"), ("book", "move", "cancel")),
    "bank": RequestPractice(BANK, ("pay_frozen",), ("pay", "balance", "close_card")),
}
OWN = {"calendar": CALENDAR, "bank": BANK}
RUNGS = [
    pytest.param(name, design, id=f"{name}-{rung}")
    for name, practice in PRACTICE.items()
    for rung, design in enumerate(practice.designs)
]


def send(environment, messages):
    for message in messages:
        if environment.step(message).done:
            break


def act(environment, seed, *wrong, instead=None):
    """The reward of an episode in which these requests are done wrong, by their mistake or ``instead``."""
    environment.reset(seed)
    for number, request in enumerate(environment._task.requests):
        mistake = request.wrong or (Message(role="assistant", content="Hm."),)
        send(environment, (instead or mistake) if number in wrong else request.right)
    return environment.grade().reward


def exercised(environment):
    return [number for number, on in enumerate(environment._exercised) if on]


@pytest.mark.parametrize(("name", "design"), RUNGS)
def test_the_solution_earns_1_and_every_mistake_costs(name, design):
    environment = environment_factory(design, OWN[name])()
    for seed in range(1, 12):
        assert act(environment, seed) == 1.0
        on, all_of_them = exercised(environment), range(len(environment._task.requests))
        off = [number for number in all_of_them if number not in on]
        rest = (len(on) - 1) / len(on) if on else 0.0
        for number in on:  # less, where a later request cannot be done any more
            earned = act(environment, seed, number)
            assert earned <= rest + 1e-9 and (name == "calendar" or earned == pytest.approx(rest))
        if on and off:
            earned = act(environment, seed, *off)
            assert earned <= 1.0 - ROUTINE_COST and (name == "calendar" or earned == 1.0 - ROUTINE_COST)
        assert act(environment, seed, *all_of_them) == 0.0


@pytest.mark.parametrize("name", PRACTICE)
def test_tools_policy_and_results_are_the_target_s_own(name):
    target = load_target(OWN[name].entry_point, OWN[name].parameters)
    environment = environment_factory(PRACTICE[name].first, OWN[name])()
    assert environment.tools == target.environment("train").tools
    system, opening = environment.reset(3).messages
    assert system == target.environment("train").reset(0).messages[0] and opening.role == "user"
    assert isinstance(environment, Prompting) and isinstance(target, PracticeSource)


def test_wholly_routine_episodes_come_at_their_turn_and_both_sorts_are_shuffled():
    environment = environment_factory(PRACTICE["bank"].first, BANK)()
    seen = [environment.reset(seed) and environment._exercised for seed in range(64)]
    assert [any(on) for on in seen] == [seed % 8 != 0 for seed in range(64)]
    assert {(True, False), (False, True)} <= set(seen)


def test_an_earlier_mistake_does_not_spoil_a_later_request():
    environment = PracticeEnvironment("bank_desk:bank", ["pay"], exercised=3, routine=0, contrast_every=0)
    for seed in range(20):
        assert act(environment, seed, 0, instead=path("No.")) == pytest.approx(2 / 3)
        state = environment.state()
        assert act(environment, seed, 0, instead=path(("pay", {"account_id": "A9", "amount": 1}), "Paid.")) < 1.0
        assert environment.state() != state


def test_an_unfinished_episode_is_graded_as_it_stands():
    environment = environment_factory(PRACTICE["bank"].designs[-1], BANK)()
    environment.reset(1)
    assert environment.grade().reward == 0.0
    send(environment, environment._task.requests[0].right)
    assert environment.grade().reward == pytest.approx(1 / 3)
    send(environment, environment._task.requests[1].right[:-1])
    assert environment.grade().reward == pytest.approx(1 / 3)


class Confirming(BankDesk):
    """The customer is asked, and says yes, before anything is paid: a request takes two replies."""

    name = "confirming"

    def user(self, reply):
        return "Yes." if reply == "Shall I?" else super().user(reply)

    def checks(self):
        yield from (check for check in self.scenario_checks() if not check.name.endswith("reply"))


class ConfirmingTarget:
    name, results = "confirming", {}
    request_kinds = ("pay",)

    def tasks(self, split):
        return (0,) if split == "train" else (1,)

    def environment(self, split):
        made = Confirming()
        made.source = split
        return made

    def practice(self, seed, kinds=()):
        drawn = Confirming()
        drawn.source, drawn.kinds = "practice", tuple(kinds)
        drawn.reset(seed)

        def again():
            made = Confirming()
            made.source, made.kinds = "practice", tuple(kinds)
            return made

        requests = []
        for request in drawn.scenario.requests:
            look_up, pay, reply = request.solution
            question = Message(role="assistant", content="Shall I?")
            requests.append(PracticeRequest("pay", request.text, (look_up, question, pay, reply), ("Done",)))
        return PracticeTask(tuple(requests), again)


def test_a_request_may_take_several_replies():
    environment = PracticeEnvironment(f"{__name__}:ConfirmingTarget", ["pay"], exercised=2, routine=0, contrast_every=0)
    for seed in range(10):
        assert act(environment, seed) == 1.0
        assert act(environment, seed, 1, instead=path("Shall I?", "No.")) == 0.5


class Strict(ConfirmingTarget):
    """The target's own grader is never content."""

    def practice(self, seed, kinds=()):
        task = super().practice(seed, kinds)

        def environment():
            made = task.environment()
            made.grade = lambda: Outcome(0.25)
            return made

        return PracticeTask(task.requests, environment)


def test_the_target_s_own_grader_has_the_last_word():
    environment = PracticeEnvironment(f"{__name__}:Strict", ["pay"], exercised=1, routine=0, contrast_every=0)
    assert act(environment, 2) == 0.25
    assert environment.grade().components == {"exercised": 1.0, "target": 0.25}


def test_prompts_need_what_they_say():
    calendar = load_target(CALENDAR.entry_point, CALENDAR.parameters)
    board = RequestPractice(CALENDAR, ("refuse_board",), ("book", "move"))
    early = RequestPractice(CALENDAR, ("first_free",), ("book", "move"))
    both = RequestPractice(CALENDAR, ("first_free", "refuse_board"), ("book", "move"))
    board, early, both = (environment_factory(each.first, CALENDAR)() for each in (board, early, both))
    opened = board.reset(5)
    for seed in range(12):
        prompts = board.prompts(seed, early)
        texts = [prompt[-1].content for prompt in (prompts.exercised, prompts.routine, prompts.combined)]
        assert ["ancel" in text for text in texts] == [True, False, True], texts
        assert ["book early" in text for text in texts] == [False, False, True], texts
        assert board.prompts(seed) == board.prompts(seed, both) != prompts
        assert board.prompts(seed).combined == ()
    assert board.prompts(0, calendar.environment("train")).combined == ()
    assert board.reset(5) == opened


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"kinds": ["juggle"]}, "'juggle' is no kind of request of the target: book, first_free"),
        ({"kinds": ["book"], "routine_kinds": ["juggle"]}, "'juggle' is no kind"),
        ({"kinds": []}, "at least one kind"),
        ({"kinds": ["book"], "routine_kinds": ["move"], "exercised": 0}, "exercised=0"),
        ({"kinds": ["book"], "routine_kinds": ["move"], "contrast_every": -1}, "contrast_every=-1"),
        ({"kinds": ["book"]}, "routine=1, contrast_every=8 without routine_kinds: name some, or set both to 0"),
    ],
)
def test_what_cannot_be_made_is_refused(parameters, words):
    given = {"target": CALENDAR.entry_point, "target_parameters": CALENDAR.parameters, **parameters}
    with pytest.raises(UserError, match=words):
        environment_factory(Design(entry_point=PRACTICE["bank"].first.entry_point, parameters=given), CALENDAR)()


def test_a_target_without_practice_is_refused():
    with pytest.raises(UserError, match="target 'helpdesk_short': has no practice"):
        PracticeEnvironment("helpdesk_short", ["status"], exercised=1, routine=0, contrast_every=0)


def test_a_target_that_draws_other_kinds_than_it_was_told_is_found_out(monkeypatch):
    environment = PracticeEnvironment("bank_desk:bank", ["pay"], exercised=1, routine=0, contrast_every=0)
    monkeypatch.setattr(BankDesk, "kinds", property(lambda self: ("balance",), lambda self, kinds: None), raising=False)
    with pytest.raises(UserError, match="practice of pay has requests of balance"):
        environment.reset(0)


def test_the_same_seed_gives_the_same_requests_of_every_kind():
    target = load_target(CALENDAR.entry_point, CALENDAR.parameters)
    for kind in KINDS:
        seed = Random(kind).randrange(10**6)
        one, two = target.practice(seed, [kind]), target.practice(seed, [kind])
        assert one.requests == two.requests
        assert one.environment().reset(seed) == two.environment().reset(seed)
