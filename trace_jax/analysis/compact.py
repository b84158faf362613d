"""Compaction: an episode as a page within a budget of tokens, for people and language models.

    compact(trajectory, budget=1500)

    # airline-13-0 (airline, task 13, reward 0)
    [1] U: Please cancel order O12.
    [2] > cancel_order(order_id='O12')
    [3] ! Error: order O12 is delivered
    [4] A: I am sorry, that order …+81… delivered.
    check refund: failed 0 of 1

The number in brackets is that of the message in the trajectory. U is the user, A the agent, ``>`` a call, ``=`` a
result and ``!`` a result that reports an error. ``…+81…`` stands for 81 characters that are left out, ``[…]`` for whole
lines. The policy is no part of the page, because episodes share it: see ``policy_page``.
"""

from bisect import bisect_right
from collections.abc import Sequence

from trace_jax.analysis.cutting import cut, plain
from trace_jax.analysis.page_lines import Line, Worth, episode_lines
from trace_jax.analysis.token_count import Count, bounded_by_bytes
from trace_jax.contract.trajectory import Trajectory

_SHARES = {  # of the room, by how much a line decides
    Worth.RESULT: 2,
    Worth.REPLY: 2,
    Worth.USED_RESULT: 4,
    Worth.REQUEST: 4,
    Worth.CALL: 4,
    Worth.LAST: 6,
    Worth.DECISIVE: 12,
}
_FLOORS = {  # characters
    Worth.RESULT: 40,
    Worth.REPLY: 60,
    Worth.USED_RESULT: 60,
    Worth.REQUEST: 120,
    Worth.CALL: 160,
    Worth.LAST: 200,
    Worth.DECISIVE: 320,
}
_SCALES = [round(1.25**step) for step in range(10, 60)]  # characters of a line of share 1, up to half a million
_GAP = "[…]"


def compact(trajectory: Trajectory, budget: int = 2000, count: Count | None = None, *, title: str | None = None) -> str:
    """The page of ``trajectory``, at most ``budget`` tokens long by ``count`` (bytes by default); deterministic.

    Long texts are cut first, those that decide least: failed calls with their errors, failed checks, the first request
    and the last words of user and agent keep six times as much as a result, the last turns three times. Of a result
    stays what later calls and replies use of it. Where this is not enough, lines are left out, results first, early
    ones first. ``title`` is the first line; by default it names id, target, task and outcome.
    """
    count = count or bounded_by_bytes()
    title = title or f"# {trajectory.id} ({trajectory.target}, task {trajectory.task}, {outcome(trajectory)})"
    lines = episode_lines(trajectory)

    def page(scale: int) -> str:
        return "\n".join([title, *(_shown(line, scale) for line in lines)])

    fitting = bisect_right(_SCALES, budget, key=lambda scale: count(page(scale)))
    while fitting and count(found := page(_SCALES[fitting - 1])) > budget:
        fitting -= 1  # a page may have a mark more than the next larger one
    if fitting:
        return found
    if count(page(0)) <= budget:
        return page(0)
    return _without_lines(title, lines, budget, count)


def outcome(trajectory: Trajectory) -> str:
    """The reward, or what broke the episode, in one line."""
    return f"broken: {plain(trajectory.error or '')}" if trajectory.broken else f"reward {trajectory.reward:g}"


def _shown(line: Line, scale: int) -> str:
    return line.shown(max(_FLOORS[line.worth], _SHARES[line.worth] * scale))


def _without_lines(title: str, lines: Sequence[Line], budget: int, count: Count) -> str:
    """The page with the lines that decide most, each cut as far as it goes."""
    shown = [_shown(line, 0) for line in lines]
    order = sorted(range(len(lines)), key=lambda number: (-lines[number].worth, -number))
    room, kept = budget - count(title), []
    for number in order:
        size = count(f"\n{shown[number]}\n{_GAP}")
        if size <= room:
            room -= size
            kept.append(number)
    while count(found := _joined(title, shown, kept)) > budget and kept:
        kept.pop()  # a tokenizer may count more for the whole than for its parts
    while count(found) > budget:
        found = cut(found, len(found) // 2) if len(found) > 40 else found[: len(found) // 2]
    return found


def _joined(title: str, shown: Sequence[str], kept: Sequence[int]) -> str:
    parts, last = [title], -1
    for number in sorted(kept):
        parts += [_GAP] * (number > last + 1)
        parts.append(shown[number])
        last = number
    return "\n".join(parts + [_GAP] * (last + 1 < len(shown)))
