"""What patterns read off an episode: each claim by the smallest episode that shows it."""

import pytest
from made_episodes import Step, made

from trace_jax.analysis.episode import read_episodes
from trace_jax.analysis.patterns.checks import full_name, groups, turn_of
from trace_jax.analysis.patterns.joint import findings_of, joint_name
from trace_jax.analysis.patterns.library import find_patterns
from trace_jax.analysis.patterns.names import describe, is_pattern, slug
from trace_jax.contract.capability import Candidate
from trace_jax.contract.trajectory import Check, Trajectory

SLOTS = [{"slot": "S1", "time": "09:00"}, {"slot": "S2", "time": "15:00"}]
BILLS = [{"bill": "B1"}, {"bill": "B2"}, {"bill": "B3"}]


def shown(trajectory: Trajectory, pattern: str, *others: Trajectory) -> list[bool]:
    """Whether each occasion of ``pattern`` was met in ``trajectory``, read among ``others``."""
    given = (trajectory, *(other.replace(id=f"o{n}") for n, other in enumerate(others)))
    table = find_patterns(read_episodes(given), [each.checks for each in given])[0]
    return [found.shown for found in findings_of(pattern, table)]


def pay(*bills: str) -> list[Step]:
    return [("pay_bill", {"bill": bill}, "ok") for bill in bills]


@pytest.mark.parametrize(
    ("steps", "pattern", "met"),
    [
        # The first of several options is taken, another one is, the user had named it, or several are.
        ([("find_slots", {}, SLOTS), ("reserve", {"slot": "S1"}, "ok")], "compare_options", [False]),
        ([("find_slots", {}, SLOTS), ("reserve", {"slot": "S2"}, "ok")], "compare_options_of_find_slots", [True]),
        ([("list_bills", {}, BILLS), *pay("B1", "B2")], "compare_options", []),
        ([("list_bills", {}, BILLS), *pay("B9")], "compare_options", []),
        # A change without anything read for it.
        ([("cancel_order", {"order": "O1"}, "ok")], "look_up_before_changes", [False]),
        (
            [("get_order", {"order": "O1"}, {}), ("cancel_order", {"order": "O1"}, "ok")],
            "look_up_before_changes",
            [True],
        ),
        ([("cancel_order", {"order": "O1"}, "ok"), "Done."], "ask_before_changes", [False]),
        (["Shall I cancel O1?", "> yes", ("cancel_order", {}, "ok")], "ask_before_cancel_order", [True]),
        ([("get_order", {}, {"error": "no"}), ("get_order", {}, {})], "avoid_errors_of_get_order", [False, True]),
        ([("reserve", {}, "ok"), ("notify", {}, "ok")], "follow_up_reserve_with_notify", [True]),
        ([("reserve", {}, "ok"), "Done.", "> thanks", ("notify", {}, "ok")], "follow_up_reserve_with_notify", [False]),
        ([("get_slot", {}, {}), ("reserve", {}, "ok")], "avoid_reserve_after_get_slot", [False]),
    ],
)
def test_calls(steps: list[Step], pattern: str, met: list[bool]) -> None:
    assert shown(made("> Do it.", *steps), pattern) == met


def test_an_option_that_the_user_named_is_no_choice() -> None:
    steps = [("find_slots", {}, SLOTS), ("reserve", {"slot": "S1"}, "ok")]
    assert shown(made("> Reserve S1.", *steps), "compare_options") == []


@pytest.mark.parametrize(
    ("request_", "paid", "met"),
    [
        ("> Pay all my bills.", ["B1", "B2", "B3"], [True]),
        ("> Pay all my bills.", ["B1"], [False]),
        ("> Pay a bill.", ["B1"], []),
    ],
)
def test_every_part_of_a_request(request_: str, paid: list[str], met: list[bool]) -> None:
    assert shown(made(request_, ("list_bills", {}, BILLS), *pay(*paid)), "do_every_part") == met


def test_requests_for_several_changes() -> None:
    both = "> Cancel O1 and refund O2."
    cancel, refund = ("cancel_order", {"order": "O1"}, "ok"), ("refund_order", {"order": "O2"}, "ok")
    assert shown(made(both, cancel, refund), "do_every_part") == [True]
    assert shown(made(both, cancel), "do_every_part", made(both, cancel, refund)) == [False]


@pytest.mark.parametrize(
    ("request_", "arguments", "met"),
    [
        ("> Send 5 euros.", {"amountCents": 500}, [True]),
        ("> Send 5 euros.", {"amountCents": 5}, [False]),
        ("> Send $5.", {"amount_cents": 5}, [False]),
        ("> Send 5 euros.", {"amount_euros": 5}, []),
        ("> Send 5 euros.", {"amount": 5}, []),
        ("> Block 2 hours.", {"duration_minutes": 120}, [True]),
        ("> Block 2 hours.", {"duration_minutes": 2}, [False]),
        ("> Drive 3 km.", {"distance": {"meters": 3000}}, [True]),
        ("> Weigh 3 pounds.", {"cents": 300}, [True]),  # pounds are money as well
        ("> Block 0 hours.", {"duration_minutes": 0}, []),
    ],
)
def test_units(request_: str, arguments: dict[str, object], met: list[bool]) -> None:
    assert shown(made(request_, ("send", arguments, "ok")), "convert_units") == met


@pytest.mark.parametrize(
    ("reply", "met"),
    [
        ("You spent 70 in all.", [True]),
        ("You spent 80 in all.", [False]),
        ("You spent 40 on travel.", []),  # a number that was given
        ("The share is 75 percent, and 30 more.", [False]),
        ("The difference is 10.", [True]),
    ],
)
def test_numbers_that_are_worked_out(reply: str, met: list[bool]) -> None:
    spent = ("list_spending", {}, {"travel": 40, "books": 30})
    assert shown(made("> What did I spend?", spent, reply), "work_out_numbers") == met


def test_states_of_records_and_arguments() -> None:
    def close(status: str, **more: str) -> Trajectory:
        return made(
            "> Close A1.",
            ("get_account", {"account": "A1"}, {"account": "A1", "status": status}),
            ("close_account", {"account": "A1", **more}, "ok"),
        )

    frozen, active = close("frozen"), close("active", reason="wish")
    assert shown(frozen, "avoid_close_account_when_status_frozen", active) == [False]
    assert shown(active, "avoid_close_account_when_status_frozen", frozen) == [True]
    assert shown(frozen, "pass_reason_to_close_account", active) == [False]
    assert shown(active, "pass_reason_to_close_account", frozen) == [True]
    assert shown(frozen, "avoid_close_account_when_status_frozen") == []  # always the same: it tells nothing


def test_records_that_are_listed_by_id() -> None:
    listed = ("list_meetings", {}, {"M1": {"board": True}, "M2": {"board": False}})
    first, second = (made("> Cancel it.", listed, ("cancel", {"meeting_id": key}, "ok")) for key in ("M1", "M2"))
    assert shown(first, "avoid_cancel_when_board_true", second) == [False]
    assert shown(second, "avoid_cancel_when_board_true", first) == [True]


@pytest.mark.parametrize(
    ("check", "name", "kind", "aspect"),
    [
        ("book.confirmed", "meet_check_book_confirmed", "meet_checks_of_book", "meet_checks_of_confirmed"),
        ("orders.O12.status", "meet_check_orders_status", "meet_checks_of_orders", "meet_checks_of_status"),
        ("book_time", "meet_check_book_time", "meet_checks_of_book", "meet_checks_of_time"),
        ("goal 3/time", "meet_check_goal_time", "meet_checks_of_goal", "meet_checks_of_time"),
    ],
)
def test_names_of_checks(check: str, name: str, kind: str, aspect: str) -> None:
    assert (full_name(check), groups(check)) == (name, (kind, aspect))


@pytest.mark.parametrize("check", ["", "...", "取消", "7", "a", "A" * 500, "__", "x.", "été.réservé"])
def test_any_name_of_a_check_is_the_name_of_a_candidate(check: str) -> None:
    for name in (full_name(check), *groups(check)):
        Candidate(name=name, description=describe(name))
        assert is_pattern(name)


def test_slugs() -> None:
    assert slug("amountCents") == "amount_cents" and slug("It's late!") == "it_s_late"


TURNS = made(
    "> Move M1.", ("move", {"id": "M1"}, "ok"), "Done.", "> Book 'hiring' on Monday.", ("book", {}, "M7"), "Ok."
)


@pytest.mark.parametrize(
    ("detail", "turn"),
    [
        ("M7: expected nothing, found a meeting", 2),
        ("M1: expected 9, found 10", 1),
        ("expected Meeting(title='hiring'), found nothing", 2),
        ("reply 2: wanted 'x'", 2),
        ("reply 9: wanted 'x'", None),
        ("M1 and M7 differ", None),
        ("", None),
        ("something else", None),
    ],
)
def test_the_turn_of_a_failed_check(detail: str, turn: int | None) -> None:
    (episode,) = read_episodes([TURNS])
    assert turn_of(episode, detail) == turn


def test_a_joint_pattern_is_lacking_where_the_lapse_and_the_check_are_of_one_turn() -> None:
    steps = ["> Take one.", ("find_slots", {}, SLOTS), ("reserve", {"slot": "S1"}, "R5"), "Done.", "> Pay.", "Paid."]
    joint = joint_name("compare_options", "meet_check_slots")
    for detail, failed, met in (
        ("R5 is wrong", True, [False]),
        ("reply 2: nothing paid", True, [True]),
        ("", True, [False]),  # nobody knows where
        ("R5", False, [True]),
    ):
        check = Check(name="slots", passed=not failed, detail=detail)
        assert shown(made(*steps, checks=[check]), joint) == met, detail
    assert shown(made("> Hi.", checks=[Check(name="slots", passed=False)]), joint) == []
    assert is_pattern(joint) and "slots" in describe(joint)
