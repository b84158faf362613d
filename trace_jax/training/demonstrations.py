"""Demonstrations: what an agent is shown before any reinforcement, token for token as it would have played it."""

from collections.abc import Iterable, Sequence

from trace_jax.chat.codec import RenderError
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Environment
from trace_jax.training.supervised import Demonstration

Turn = tuple[Message, tuple[Message, ...]]  # what the agent said, what came back


def turns_of(environment: Environment, messages: Iterable[Message]) -> list[Turn]:
    """The turns of an agent that says ``messages`` in an environment that was reset."""
    return [(message, environment.step(message).messages) for message in messages]


def tokenized(
    opening: Sequence[Message], tools: Sequence[Tool], turns: Sequence[Turn], renderer: Renderer
) -> Demonstration:
    """The demonstration as an agent loop would have recorded it; what the agent said is trained.

    Raises RenderError where an agent loop would begin a new context: a demonstration is one.
    """
    history = list(opening)
    tokens = list(renderer.prompt(opening, tools))
    trained = [False] * len(tokens)
    for number, (message, answer) in enumerate(turns, start=1):
        said = renderer.assistant(message)
        history.append(message)
        heard = renderer.continuation(history, said, answer) if number < len(turns) else ()
        if heard is None:
            raise RenderError(f"a new context begins behind turn {number} of {len(turns)}: demonstrate up to there")
        history += answer
        tokens += [*said, *heard]
        trained += [True] * len(said) + [False] * len(heard)
    return Demonstration(tuple(tokens), tuple(trained))
