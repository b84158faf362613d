"""This project's GRPO step on a random Qwen3: embedded engine, group advantages, learner.

taskset -c 0 python -m benchmarks.peers.ours_step --shape=A
"""

import asyncio
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from flax import nnx
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.peers import common
from trace_jax.contract.trajectory import Policy, Segment, Trajectory, Usage
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.training.advantages import group_advantages
from trace_jax.training.learner import Learner
from trace_jax.training.publish import Publisher
from trace_jax.training.sample import samples
from trace_jax.training.settings import GRPOConfig


class Step:
    """The state that is kept between steps."""

    def __init__(self, shape: common.Shape) -> None:
        self.shape = shape
        self.config = DecoderConfig(
            vocab_size=shape.vocab, hidden_size=common.WIDTH, num_layers=common.LAYERS, num_heads=common.HEADS,
            num_kv_heads=common.KV_HEADS, head_dim=common.HEAD_WIDTH, intermediate_size=common.FEED_FORWARD,
            rope_theta=1e6, tie_embeddings=True,
        )  # fmt: skip
        decoder = Decoder(self.config, nnx.Rngs(0))
        self.tokenizer = Tokenizer(models.WordLevel(common.vocabulary(shape.vocab), unk_token="<unk>"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self.engine = EmbeddedEngine(
            decoder,
            self.config,
            (),
            EngineSettings(slots=common.GROUP, capacity=shape.prompt + shape.completion),
            max_adapters=1,
        )
        self.learner = Learner(
            decoder,
            GRPOConfig(
                max_steps=1, groups_per_step=1, num_generations=common.GROUP, rank=common.RANK, alpha=common.RANK,
                target_modules=common.TARGETS, learning_rate=common.LEARNING_RATE, epsilon=common.CLIP,
                max_grad_norm=common.MAX_GRAD_NORM, max_completion_length=shape.completion,
            ),
            temperature=1.0,
            seed=0,
        )  # fmt: skip
        self.publisher = Publisher(self.engine, model=self.config, base="random", directory="published")

    def rollout(self, number: int) -> tuple[tuple[int, ...], list[Completion]]:
        """The prompt's tokens and a group of completions, sampled with the current adapter."""
        name = f"bench@{number}"
        self.publisher.publish(name, self.learner.lora())
        text = common.prompt(number, self.shape.prompt, self.shape.vocab)
        tokens = tuple(self.tokenizer.encode(text).ids)

        async def group() -> list[Completion]:
            sampling = [Sampling(self.shape.completion, 1.0, common.GROUP * number + i) for i in range(common.GROUP)]
            return await asyncio.gather(*(self.engine.generate(tokens, own, name) for own in sampling))

        return tokens, asyncio.run(group())

    def rewards(self, completions: list[Completion]) -> list[float]:
        """Rewards of the group, from its text."""
        texts = [self.tokenizer.decode(completion.token_ids) for completion in completions]
        return [common.reward(text, self.shape.completion) for text in texts]

    def update(self, tokens: tuple[int, ...], completions: list[Completion], rewards: list[float]) -> None:
        """One optimiser step on the group."""
        (advantages,) = group_advantages([np.array(rewards)])
        rollouts = [_trajectory(i, tokens, *pair) for i, pair in enumerate(zip(completions, rewards, strict=True))]
        paired = zip(rollouts, advantages, strict=True)
        self.learner.update([context for rollout, a in paired for context in samples(rollout, float(a), group=0)])


def _trajectory(number: int, tokens: tuple[int, ...], completion: Completion, reward: float) -> Trajectory:
    return Trajectory(
        id=f"rollout-{number}", target="bench", task="odd words", split="train", seed=0, trial=number,
        policy=Policy(base="random", adapter="bench"), messages=(), tools=(), reward=reward, termination="done",
        segments=(
            Segment(tokens=tokens, trained=False),
            Segment(tokens=completion.token_ids, trained=True, logprobs=completion.logprobs),
        ),
        usage=Usage(prompt_tokens=len(tokens), completion_tokens=len(completion.token_ids)),
        seconds=0.0,
    )  # fmt: skip


def main() -> None:
    arguments = common.arguments()
    step, clock = Step(common.SHAPES[arguments.shape]), common.Clock()
    rollout, update = clock.timed("rollout", step.rollout), clock.timed("update", step.update)
    lengths = []
    clock.mark()
    for number in range(arguments.steps):
        tokens, completions = rollout(number)
        update(tokens, completions, step.rewards(completions))
        clock.mark()
        lengths.append(sum(len(c.token_ids) for c in completions) / len(completions))
    clock.report("ours", lengths, sum(leaf.size for leaf in jax.tree.leaves(step.learner.weights)))


if __name__ == "__main__":
    main()
