"""No generated episode may be a task of the target: what users say in them is compared, as digests."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from trace_jax.contract.trajectory import Message, Split
from trace_jax.environments.protocol import Environment, PracticeSource, Practised, Target, Task

MOST = 1000  # tasks of a split that are compared, spread over all of them
_STEPS = 64  # of one task
_SPLITS: tuple[Split, ...] = ("train", "held_out")
_ACKNOWLEDGED = Message(role="assistant", content="Done.")


@dataclass(frozen=True)
class Conversations:
    """What users say in the tasks of a target, as digests. ``broken`` tasks could not be played."""

    digests: frozenset[str] = frozenset()
    tasks: int = 0
    broken: int = 0

    def __contains__(self, messages: Iterable[Message]) -> bool:
        """Whether the user says in ``messages`` what one says in a task, and nothing else."""
        return _digest(messages) in self.digests


NO_TASKS = Conversations()


def conversations(target: Target) -> Conversations:
    """The conversations of the tasks of both splits, with an agent that does nothing.

    None for a target without practice: its user may be a language model.
    """
    if not isinstance(target, PracticeSource | Practised):
        return NO_TASKS
    digests, broken = [], 0
    for split in _SPLITS:
        tasks, environment = target.tasks(split), target.environment(split)
        for task in tasks[:: -(-len(tasks) // MOST) or 1]:
            try:
                digests.append(_digest(_heard(environment, task)))
            except Exception:  # an environment is foreign code; its episodes will say what is wrong
                broken += 1
    return Conversations(frozenset(digests), len(digests), broken)


def _heard(environment: Environment, task: Task) -> list[Message]:
    heard = list(environment.reset(task).messages)
    for _ in range(_STEPS):
        observation = environment.step(_ACKNOWLEDGED)
        heard += observation.messages
        if observation.done:
            break
    return heard


def _digest(messages: Iterable[Message]) -> str:
    said = "\n".join(" ".join((message.content or "").split()) for message in messages if message.role == "user")
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:32]
