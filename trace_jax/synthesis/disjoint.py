"""What is known of a target's tasks: what users say, the calls that solve them, and the shapes of calls and results.

No generated episode may be a task of the target: the gates ``disjoint`` and ``novel`` compare it with all of them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from trace_jax.contract.trajectory import Message, Split, ToolCall, Trajectory
from trace_jax.environments.protocol import Environment, PracticeSource, PracticeTask, Practised, Target, Task
from trace_jax.synthesis.shapes import Shapes

MOST = 1000  # tasks of a split that are compared, spread over all of them
SHOWN = 40  # practice tasks whose solutions show the shapes of calls
_STEPS = 64  # of one task
_SPLITS: tuple[Split, ...] = ("train", "held_out")
_ACKNOWLEDGED = Message(role="assistant", content="Done.")


@dataclass(frozen=True)
class Conversations:
    """The tasks of a target, both splits. ``broken`` tasks could not be played.

    Attributes:
        digests: of everything that the user says in a task.
        tasks: how many were played.
        words: the words of the user, of each task.
        calls: the calls that solve a task, of those whose solution is known; each set once.
        shapes: of calls and results in the target's episodes.
    """

    digests: frozenset[str] = frozenset()
    tasks: int = 0
    broken: int = 0
    words: tuple[frozenset[str], ...] = ()
    calls: tuple[frozenset[str], ...] = ()
    shapes: Shapes = field(default_factory=Shapes)

    def __contains__(self, messages: Iterable[Message]) -> bool:
        """Whether the user says in ``messages`` what one says in a task, and nothing else."""
        return _digest(messages) in self.digests


NO_TASKS = Conversations()


def conversations(target: Target, episodes: Sequence[Trajectory] = ()) -> Conversations:
    """The conversations of the tasks of both splits, with an agent that does nothing.

    A target without practice is not played, since its user may be a language model. ``episodes`` are recorded ones of
    the target: they tell what its users say there, the calls of those that passed, and shapes. Practice tells shapes
    too, where the target has it.
    """
    heard: list[list[Message]] = []
    solved: dict[frozenset[str], None] = {}
    broken = 0
    if isinstance(target, PracticeSource | Practised):
        for split in _SPLITS:
            tasks, environment = target.tasks(split), target.environment(split)
            for task in tasks[:: -(-len(tasks) // MOST) or 1]:
                try:
                    heard.append(_heard(environment, task))
                    solved[_solution(environment)] = None
                except Exception:  # an environment is foreign code; its episodes will say what is wrong
                    broken += 1
    known = recorded(episodes)
    return Conversations(
        frozenset(_digest(messages) for messages in heard),
        len(heard),
        broken,
        (*map(words_of, heard), *(() if heard else known.words)),
        tuple(solved | dict.fromkeys(known.calls)),
        _with_practice(known.shapes, target),
    )


def recorded(episodes: Iterable[Trajectory]) -> Conversations:
    """What recorded episodes tell of their target's tasks: words, the calls of those that passed, and shapes."""
    graded = [episode for episode in episodes if not episode.broken]
    shapes = Shapes()
    for episode in graded:
        shapes.add(_exchanges(episode.messages))
    return Conversations(
        words=tuple(dict.fromkeys(words_of(episode.messages) for episode in graded)),
        calls=tuple(dict.fromkeys(calls_of(episode.messages) for episode in graded if episode.passed)),
        shapes=shapes,
    )


def words_of(messages: Iterable[Message]) -> frozenset[str]:
    """The words of the user, in small letters, without the punctuation around them."""
    said = " ".join(message.content or "" for message in messages if message.role == "user")
    return frozenset(re.findall(r"\w+(?:[.\-']\w+)*", said.lower()))


def calls_of(messages: Iterable[Message]) -> frozenset[str]:
    """The calls of the agent with their arguments, as texts."""
    return frozenset(
        f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"
        for message in messages
        for call in message.tool_calls
        if call.arguments is not None
    )


def _with_practice(shapes: Shapes, target: Target) -> Shapes:
    if not isinstance(target, PracticeSource):
        return shapes
    for seed in range(SHOWN):
        try:
            shapes.add(_solved(target.practice(seed), seed))
        except Exception:  # foreign code; a design on this practice will break, and say so
            continue
    return shapes


def _solved(task: PracticeTask, seed: int) -> list[tuple[ToolCall, Message]]:
    """The calls of a task's solution, each with its answer."""
    environment = task.environment()
    environment.reset(seed)
    messages = [message for request in task.requests for message in request.right]
    return [
        exchange
        for message in messages
        for exchange in zip(message.tool_calls, environment.step(message).messages, strict=False)
    ]


def _solution(environment: Environment) -> frozenset[str]:
    """The calls of the solution of the task that was just played; empty where the environment does not show one."""
    solution: Callable[[], Iterable[Message]] | None = getattr(environment, "solution", None)
    return frozenset() if solution is None else calls_of(solution())


def _exchanges(messages: Iterable[Message]) -> Iterator[tuple[ToolCall, Message]]:
    """Each call with its answer. Ids may repeat: an answer belongs to the last call of its id."""
    calls: dict[str, ToolCall] = {}
    for message in messages:
        calls |= {call.id: call for call in message.tool_calls}
        if message.role == "tool" and message.tool_call_id in calls:
            yield calls[message.tool_call_id], message


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
