"""Demonstrations for supervised learning, token for token as the agent loop would have recorded them."""

from collections.abc import Iterable, Sequence

from trace_jax.chat.codec import RenderError
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Environment
from trace_jax.training.supervised import Demonstration

Turn = tuple[Message, tuple[Message, ...]]  # the agent's message and the environment's answers


def turns_of(environment: Environment, messages: Iterable[Message]) -> list[Turn]:
    """The turns of an agent that sends ``messages`` to an environment, which has been reset."""
    return [(message, environment.step(message).messages) for message in messages]


def tokenized(
    opening: Sequence[Message], tools: Sequence[Tool], turns: Sequence[Turn], renderer: Renderer
) -> Demonstration:
    """The demonstration as the agent loop would have recorded it; the tokens of the agent's messages are trained.

    Raises RenderError if the agent loop would begin a new context: a demonstration has only one.
    """
    history = list(opening)
    tokens = list(renderer.prompt(opening, tools))
    trained = [False] * len(tokens)
    for number, (message, answers) in enumerate(turns, start=1):
        completion = renderer.assistant(message)
        history.append(message)
        rendered = renderer.continuation(history, completion, answers) if number < len(turns) else ()
        if rendered is None:
            raise RenderError(f"a new context begins after turn {number} of {len(turns)}: demonstrate up to there")
        history += answers
        tokens += [*completion, *rendered]
        trained += [True] * len(completion) + [False] * len(rendered)
    return Demonstration(tuple(tokens), tuple(trained))
