"""Makes a tiny base agent: ``python -m launch.tiny_agent --config=configs/tiny_agent.py --workdir=DIR``.

The program trains a small Qwen3 model and its tokenizer from scratch, on demonstrations of a target that brings
practice requests (``trace_jax.environments.protocol.PracticeSource``). They systematically take the wrong path of
requests that have one, so that the agent lacks what these requests need. It writes a Hugging Face directory. The agent
is for demonstration only: it can do nothing else. The default target is helpdesk, for the quick start; another one is
named by --config.target.environment.
"""

from pathlib import Path

import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from launch.lessons import demonstrate, lessons, number_of_lessons, texts, vocabulary
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.environments.protocol import PracticeSource
from trace_jax.environments.registry import load_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import save
from trace_jax.program import run
from trace_jax.run_settings import read_section
from trace_jax.telemetry.progress import Progress
from trace_jax.training.demonstrations import tokenized
from trace_jax.training.supervised import SupervisedConfig, train_supervised


def main(config: ConfigDict, workdir: epath.Path) -> None:
    target = practice_source(config)
    progress = Progress()
    rng, shown = np.random.default_rng(config.seed), []
    with progress, progress.stage("demonstrations", number_of_lessons(config)) as stage:
        for lesson in lessons(target, config):
            shown.append(demonstrate(lesson, rng))
            stage.advance()
    heard = (text for demonstration in shown[-2000:] for text in texts(demonstration))
    words, identifiers = vocabulary(target, shown[-2000:])
    tokenizer = train_tokenizer(heard, config.vocab_size, words)
    split = [word for word in identifiers if len(tokenizer.encode(word).ids) > 1]
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


def practice_source(config: ConfigDict) -> PracticeSource:
    """The target to teach. Raises UserError if it brings no practice requests, or none with a wrong path."""
    settings = read_section(config, TargetSettings)
    target = load_target(settings.environment, settings.arguments())
    if not isinstance(target, PracticeSource):
        raise UserError(
            f"target {settings.environment!r}: brings no practice(seed, kinds), from which an agent is taught"
        )
    if all(target.practice(0, [kind]).requests[0].wrong is None for kind in target.request_kinds):
        raise UserError(
            f"target {settings.environment!r}: no kind of its requests has a wrong path: the agent would lack nothing"
        )
    return target


if __name__ == "__main__":
    run(main, settings=(TargetSettings,))
