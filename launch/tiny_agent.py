"""Makes the quick start's base agent: ``python -m launch.tiny_agent --config=configs/tiny_agent.py --workdir=DIR``.

The program trains a small Qwen3 model and its tokenizer from scratch, on demonstrations of helpdesk that systematically
lack some capabilities, and writes a Hugging Face directory. The agent is for demonstration only: it can do nothing
else.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from trace_jax.chat.calls import text_of
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.contract.trajectory import Message
from trace_jax.environments.helpdesk.database import CITIES, CUSTOMERS, KINDS, ORDERS, PRODUCTS, STATUSES
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.draw import draw_task
from trace_jax.environments.helpdesk.lessons import draw_lesson
from trace_jax.environments.helpdesk.policies import Demonstrator
from trace_jax.environments.helpdesk.ticket import Ticket
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import save
from trace_jax.program import run
from trace_jax.telemetry.progress import Progress
from trace_jax.training.demonstrations import Turn, tokenized, turns_of
from trace_jax.training.supervised import SupervisedConfig, train_supervised


def lessons(config: ConfigDict) -> Iterator[tuple[Ticket, float]]:
    """The curriculum: tickets, each with the demonstrator's wrong share. Skills come first, then habits, mixed."""
    first = config.seed * number_of_lessons(config)
    for seed in range(first, first + config.skills):
        yield draw_lesson(1, seed), 0.0
    lengths = np.repeat(range(len(config.habits) + 1), (config.tickets, *config.habits))
    shuffled = np.random.default_rng(config.seed).permutation(lengths)
    for seed, requests in enumerate(shuffled, start=first + config.skills):
        yield draw_lesson(int(requests), seed) if requests else draw_task("practice", seed), config.wrong_share


def number_of_lessons(config: ConfigDict) -> int:
    """The number of tickets in the curriculum."""
    return config.skills + sum(config.habits) + config.tickets


def demonstrate(ticket: Ticket, rng: np.random.Generator, wrong_share: float) -> tuple[tuple[Message, ...], list[Turn]]:
    """The opening messages and the turns of one demonstration."""
    desk = Desk("practice", lambda _: ticket)
    opening = desk.reset(0).messages
    return opening, turns_of(desk, Demonstrator(rng, wrong_share)(desk))


def texts(opening: tuple[Message, ...], turns: list[Turn]) -> Iterator[str]:
    """All texts of a demonstration, from which the tokenizer learns."""
    for message in (*opening, *(m for said, answer in turns for m in (said, *answer))):
        if message.content:
            yield message.content
        for call in message.tool_calls:
            yield f"{call.name} {text_of(call.arguments)}"


def main(config: ConfigDict, workdir: epath.Path) -> None:
    progress = Progress()
    rng, shown = np.random.default_rng(config.seed), []
    with progress, progress.stage("demonstrations", number_of_lessons(config)) as stage:
        for ticket, wrong_share in lessons(config):
            shown.append(demonstrate(ticket, rng, wrong_share))
            stage.advance()
    heard = (text for demo in shown[-2000:] for text in texts(*demo))
    tokenizer = train_tokenizer(heard, config.vocab_size, (*CITIES, *KINDS, *STATUSES))
    split = [word for word in (*ORDERS, *PRODUCTS, *CUSTOMERS) if len(tokenizer.encode(word).ids) > 1]
    if split:
        raise UserError(
            f"config.vocab_size={config.vocab_size} splits {len(split)} ids such as {split[0]} into several tokens, "
            "which a small model does not learn to copy: raise it"
        )
    renderer = TinyRenderer(tokenizer)
    demonstrations = [tokenized(opening, (), turns, renderer) for opening, turns in shown]

    shape = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.hidden_size // config.num_heads,
        intermediate_size=config.intermediate_size,
        tie_embeddings=True,
        max_position_embeddings=1024,
    )
    settings = SupervisedConfig(learning_rate=config.learning_rate, rows=config.rows)
    with progress, progress.stage("teaching", -(-len(demonstrations) // config.rows)) as stage:

        def taught(step: int, loss: float) -> None:
            batch = demonstrations[(step - 1) * config.rows : step * config.rows]
            stage.advance(tokens=sum(len(demonstration.tokens) for demonstration in batch))
            if step % 50 == 0:
                progress.print(f"step {step}: loss {loss:.4f} nats a token")

        decoder = train_supervised(Decoder(shape, nnx.Rngs(config.seed)), demonstrations, settings, taught)
    directory = Path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, directory)
    save(decoder, shape, directory)  # writes config.json last; its presence means that the model is complete


if __name__ == "__main__":
    run(main, settings=())
