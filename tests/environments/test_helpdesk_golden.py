"""Claim: the episodes of the built-in target are, to the byte, those that every recorded figure was measured on."""

import hashlib
import json
from collections.abc import Callable, Iterator

import numpy as np

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.policies import follow, oracle
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.random_calls import random_call, words_in

DIGEST = "b420e61f1a4657c867cce18c54dff04f9b19424409d9aa57bd094a2d387c1394"  # made before the desk was on the kit


def tempted(desk: Desk) -> Iterator[Message]:
    """The wrong path wherever there is one."""
    for request in desk.ticket.requests:
        yield from follow(request.wrong or request.right)


def at_random(task: int) -> Callable[[Desk], Iterator[Message]]:
    """Calls with arguments that fit, that are missing, too many, or of another type, and calls of no tool."""

    def script(desk: Desk) -> Iterator[Message]:
        rng, shop = np.random.default_rng([5, task]), desk.database
        words = [*words_in(desk.ticket.opening()), *shop.orders, *shop.customers, *shop.products]
        for _ in desk.ticket.requests:
            for _ in range(4):
                call = random_call(rng, desk.tools, words)
                given = call.arguments or {}
                match rng.integers(4):
                    case 0:
                        given = {**given, "x": 1}
                    case 1:
                        given = dict.fromkeys(given, 1.5)
                    case 2:
                        given = dict(list(given.items())[1:])
                unknown = ToolCall(id="u", name="nope", arguments={})
                malformed = ToolCall(id="m", name=call.name, arguments=None, raw_arguments="{")
                yield Message(role="assistant", tool_calls=(call.replace(arguments=given), unknown, malformed))
            yield Message(role="assistant", content="Done.")

    return script


def transcript(desk: Desk, task: int, script: Callable[[Desk], Iterator[Message]]) -> str:
    """All that an agent sees, and the grade."""
    lines = [message.model_dump_json() for message in desk.reset(task).messages]
    lines += [tool.model_dump_json(exclude={"effect"}) for tool in desk.tools]
    for message in script(desk):
        observation = desk.step(message)
        lines += [answer.model_dump_json() for answer in observation.messages]
        if observation.done:
            break
    outcome = desk.grade()
    lines += [repr(outcome.reward), json.dumps(outcome.components)]
    return "\n".join([*lines, *(check.model_dump_json() for check in outcome.checks)])


def test_every_task_of_both_splits_plays_as_ever() -> None:
    target, digest = Helpdesk(), hashlib.sha256()
    for split in ("train", "held_out"):
        for task in target.tasks(split):
            for script in (oracle, tempted, at_random(task)):
                digest.update(transcript(target.environment(split), task, script).encode())
    assert digest.hexdigest() == DIGEST
