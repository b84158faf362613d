"""The calendar of ``examples``, whose grader names fields of the state. Its agent has four faults.

It books any free hour for the first one, cancels board meetings, counts wrong, and takes the first meeting of a day for
the one that was named.
"""

import json
from typing import Any

from evaluation.planted.play import Planted, Play, Refusal
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.kit import Request
from trace_jax.environments.registry import ENVIRONMENTS

Calendar: Any = ENVIRONMENTS.find("examples.calendar:Calendar")
FAULTS = ("books_early", "keeps_prohibition", "counts", "takes_the_named")


def episode(play: Play) -> None:
    """Three requests of different kinds, as the target draws them."""
    target = Calendar()
    target.reset(int(play.rng.integers(2**31)))
    play.execute = lambda name, arguments: _execute(target, name, arguments)
    play.lookups = [("list_meetings", {"day": day}) for day in ("Monday", "Tuesday", "Wednesday")]
    for request in target.scenario.requests:
        play.user(request.text)
        play.say(_serve(play, request))
        target.step(play.messages[-1])
    for check in target.grade().checks:
        play.check(check.name, check.passed, check.detail)


def _execute(target: Any, name: str, arguments: dict[str, Any]) -> Any:
    call = ToolCall(id="c", name=name, arguments=arguments)
    (answer,) = target.step(Message(role="assistant", tool_calls=(call,))).messages
    result = json.loads(answer.content or "null")
    if isinstance(result, dict) and "error" in result:
        raise Refusal(result["error"])
    return result


def _serve(play: Play, request: Request) -> str:
    """Make the calls for ``request``. Returns the reply."""
    day = (request.calls[0].arguments or {})["day"]
    change = request.calls[1] if len(request.calls) > 1 else None
    given = dict((change.arguments if change else None) or {})
    meetings = play.call("list_meetings", day=day)
    if request.kind == "count":
        wrong = play.lapses("counts")
        return f"There are {len(meetings) + play.pick((1, 2)) * wrong} meetings."
    if request.kind == "refuse_board":
        named = [k for k, found in meetings.items() if found["board"] and f" {found['hour']}:00" in request.text]
        if named and play.lapses("keeps_prohibition"):  # an earlier fault may have moved it
            play.call("cancel", meeting_id=named[0])
            return "I have cancelled it."
        return "I do not cancel board meetings."
    if request.kind == "first_free" and play.lapses("books_early"):
        taken = [found["hour"] for found in meetings.values()]
        given["hour"] = play.pick([hour for hour in range(given["hour"] + 1, 17) if hour not in taken])
    if change is None or request.kind in ("book", "first_free"):
        play.call("book", **given | ({"title": "meeting"} if play.slips() else {}))
        return "It is booked."
    first = next(iter(meetings), given["meeting_id"])
    if play.lapses("takes_the_named", matters=first != given["meeting_id"]):
        given["meeting_id"] = first
        if change.name == "cancel" and meetings[first]["board"]:
            play.faults.add("keeps_prohibition")  # a board meeting is cancelled, whatever the reason
    play.call(change.name, **given)
    return "It is done."


CALENDAR = Planted("calendar", Calendar.policy, Calendar.tools, FAULTS, episode, rate=0.4)
