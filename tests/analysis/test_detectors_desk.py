"""On helpdesk tickets the truth is known: which request takes which path. Detectors see messages, calls, results."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from desk_rollouts import ticket_episode

from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.detectors.library import CAPABILITIES, DETECTORS
from trace_jax.analysis.episode import read_episodes
from trace_jax.contract.capability import Label
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.policies import follow
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY, ROUTINE, Builder, Path

LACKED = [
    (name, builder)
    for name, builders in BY_CAPABILITY.items()
    for builder in builders
    if name not in ("refuse_forbidden", "recover_from_error")
]
HELD = [(name, builder) for name in ("refuse_forbidden", "recover_from_error") for builder in BY_CAPABILITY[name]]


def on_path(take_wrong: Callable[[int], bool]) -> Callable[[Desk], Iterator[Message]]:
    """A policy that takes the wrong path of request number i where ``take_wrong(i)`` and there is one."""

    def policy(desk: Desk) -> Iterator[Message]:
        for number, request in enumerate(desk.ticket.requests):
            wrong = request.wrong if take_wrong(number) else None
            yield from follow(wrong or request.right)

    return policy


def labels(trajectories: tuple[Trajectory, ...]) -> list[dict[str, Label]]:
    """Label by detector: LACKING if any finding says so, else PRESENT if there is one, else NA."""
    found = []
    for episode in read_episodes(trajectories):
        row = {}
        for name, detector in DETECTORS.items():
            findings = list(detector.find(episode))
            lacking = any(not finding.shown for finding in findings)
            row[name] = Label.LACKING if lacking else Label.PRESENT if findings else Label.NA
        found.append(row)
    return found


def tickets(builder: Builder, wrong: bool) -> tuple[Trajectory, ...]:
    """Fifteen tickets with ``builder``'s request among two routine ones, its place drawn."""
    episodes = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        builders = [ROUTINE[rng.integers(len(ROUTINE))] for _ in range(2)]
        place = int(rng.integers(3))
        builders.insert(place, builder)
        policy = on_path(lambda number, place=place: wrong and number == place)
        episodes.append(ticket_episode(builders, seed, policy).replace(id=f"{builder.__name__}-{seed}"))
    return tuple(episodes)


@pytest.mark.parametrize(("capability", "builder"), LACKED, ids=lambda value: getattr(value, "__name__", value))
def test_the_wrong_path_lacks_its_capability_and_no_other(capability: str, builder: Builder) -> None:
    episodes = tickets(builder, wrong=True)
    assert not any(episode.passed for episode in episodes)
    for row in labels(episodes):
        assert row[capability] is Label.LACKING
        others = [
            detector.name
            for detector in CAPABILITIES
            if detector.name != capability and row[detector.name] is Label.LACKING
        ]
        assert not others
        assert all(row[detector.name] is not Label.LACKING for detector in DISTRACTORS)


@pytest.mark.parametrize(("capability", "builder"), LACKED + HELD, ids=lambda value: getattr(value, "__name__", value))
def test_the_right_path_shows_the_capability_and_lacks_none(capability: str, builder: Builder) -> None:
    episodes = tickets(builder, wrong=False)
    assert all(episode.passed for episode in episodes)
    for row in labels(episodes):
        assert row[capability] is Label.PRESENT
        assert Label.LACKING not in row.values()


def test_routine_requests_need_none_of_the_lacked_capabilities() -> None:
    episodes = tuple(
        ticket_episode(
            [ROUTINE[i] for i in np.random.default_rng(seed).integers(len(ROUTINE), size=4)], seed, on_path(bool)
        ).replace(id=str(seed))
        for seed in range(30)
    )
    for row in labels(episodes):
        assert {row[name] for name, _ in LACKED} == {Label.NA}


def test_a_forbidden_change_that_is_made_is_lacking_whatever_the_tool_says() -> None:
    def breaks_the_rule(desk: Desk) -> Iterator[Message]:
        order = desk.ticket.requests[0].right.calls[0][1]["order_id"]
        yield from follow(
            Path((("get_order", {"order_id": order}), ("cancel_order", {"order_id": order})), f"Cancelled {order}.")
        )

    cancel_forbidden = BY_CAPABILITY["refuse_forbidden"][0]
    episodes = tuple(ticket_episode([cancel_forbidden], s, breaks_the_rule).replace(id=str(s)) for s in range(10))
    assert {row["refuse_forbidden"] for row in labels(episodes)} == {Label.LACKING}


def test_giving_up_after_an_error_is_lacking() -> None:
    def gives_up(desk: Desk) -> Iterator[Message]:
        path = desk.ticket.requests[0].right
        yield from follow(
            Path(path.calls[:2] if path.calls[0] != path.calls[1] else path.calls[:1], "That did not work.")
        )

    for builder in BY_CAPABILITY["recover_from_error"]:
        episodes = tuple(ticket_episode([builder], s, gives_up).replace(id=str(s)) for s in range(10))
        assert {row["recover_from_error"] for row in labels(episodes)} == {Label.LACKING}
