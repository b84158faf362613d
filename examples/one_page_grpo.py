"""GRPO on one page: from a base model and an environment to a LoRA adapter in PEFT format.

    python -m examples.one_page_grpo --directory=runs/one_page

Every step of the loop below is one round of GRPO (arXiv 2402.03300):

    the engine gets the adapter as it is now  →  it plays groups of episodes  →  rewards become advantages
    →  a clipped loss on the sampled tokens has a gradient  →  the optimiser moves the adapter  →  and again

These are the functions that the full trainer (``trace_jax.training.train``) is made of. The trainer adds checkpoints
that survive a kill, meshes of devices, several adapters at once, rollouts during updates, and metrics.

Shape letters: B batch rows, T time, D model width, M trained tokens of a micro-batch.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from trace_jax.chat.loading import load_renderer
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.source import load_source
from trace_jax.models.decoder import decoder_of, params_of
from trace_jax.models.formats.huggingface import load, revision
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.sandbox.designs import host_of_design
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.training.advantages import group_advantages
from trace_jax.training.batch import MicroBatch, micro_batches
from trace_jax.training.collection import Group
from trace_jax.training.group_source import GroupSource, TrainingEnvironment
from trace_jax.training.head import token_logprobs
from trace_jax.training.loss import policy_loss, policy_loss_config
from trace_jax.training.publish import Publisher
from trace_jax.training.sample import samples
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.versions import versioned

Tree = Any  # a tree of arrays

ENVIRONMENT = "trace_jax.environments.helpdesk.practice.complete_all_steps:CompleteAllSteps"
TASKS = 60  # of the environment, walked in shuffled epochs

ROLLOUT = RolloutSettings(temperature=1.0, max_turns=24, max_episode_tokens=512, max_turn_tokens=64, concurrency=64)
TRAINING = GRPOConfig(
    groups_per_step=4,
    num_generations=8,
    num_iterations=2,
    learning_rate=2e-3,
    rank=8,
    alpha=16.0,
    micro_batch_tokens=2048,
    row_tokens=256,
)


def grpo(
    base: str | Path,
    environment: str,
    directory: Path,
    *,
    steps: int,
    training: GRPOConfig = TRAINING,
    rollout: RolloutSettings = ROLLOUT,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> Path:
    """Train a LoRA adapter on ``environment`` for ``steps`` steps; return its PEFT directory.

    Args:
        base: Hugging Face directory of the base model.
        environment: whatever ``load_source`` takes: ``module:Class``, a target's name, or an environment manifest. What
            a language model wrote runs in the sandbox.
        directory: where the adapter is written.
        report: called after each step with its number, mean reward, loss, trained tokens and seconds.
    """
    # The base: frozen weights (one tree), and what turns chats into tokens.
    decoder, model = load(base)
    params, name = params_of(decoder), revision(base)
    renderer = load_renderer(Path(base), None)

    # The tasks: group n is a function of n and the seed. All rollouts of a group have the same task.
    hosted = partial(host_of_design, settings=SandboxSettings())
    source = load_source(environment, "train", TASKS, host_of_design=hosted)
    tasks = TrainingEnvironment(source.name, source.host, source.tasks, source.target, "train")
    group_source = GroupSource([tasks], "one_page", seed, rollout)

    # The adapter: LoRA's matrices a and b for every projection (another tree), trained by AdamW.
    lora = init_lora(model, training.rank, training.alpha, training.target_modules, key=jax.random.key(seed))
    optimiser = optax.chain(
        optax.clip_by_global_norm(training.max_grad_norm), optax.adamw(training.learning_rate, weight_decay=0.0)
    )
    weights, state = lora.weights, optimiser.init(lora.weights)

    def loss_of(weights: Tree, params: Tree, micro: MicroBatch) -> jax.Array:
        """The loss of a micro-batch. Summed over micro-batches it is the loss of the batch."""
        logprobs_M = logprobs(weights, params, micro)
        loss_M, _ = policy_loss(
            logprobs_M,
            old_logprobs_M=None,
            sampler_logprobs_M=micro.sampler_logprobs_M,  # the engine's, from when it sampled: the old policy
            reference_logprobs_M=None,  # no KL
            advantages_M=micro.advantages_M,
            weights_M=micro.weights_M,
            sequence_M=micro.sequence_M,
            config=policy_loss_config(training),
        )
        return jnp.sum(loss_M)

    def logprobs(weights: Tree, params: Tree, micro: MicroBatch) -> jax.Array:
        """log π of the trained tokens, [M]. Logits [T, V] are never formed as a whole."""
        policy = decoder_of(model, params)
        hidden_BTD = policy(
            micro.tokens_BT,
            micro.positions_BT,
            micro.segment_ids_BT,
            micro.parent_ids_BT,
            lora=LoRA(weights, lora.scale),
            adapter_ids_B=micro.adapter_ids_B,
        )
        hidden_MD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[micro.source_M]
        return token_logprobs(hidden_MD, policy.head_VD(), micro.target_M, rollout.temperature)[0]

    gradient_of = jax.jit(jax.value_and_grad(loss_of))

    @jax.jit
    def move(weights: Tree, state: Tree, gradient: Tree) -> tuple[Tree, Tree]:
        updates, state = optimiser.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    engine = EmbeddedEngine(
        decoder,
        model,
        renderer.stop_token_ids,
        EngineSettings(slots=rollout.concurrency, capacity=rollout.max_episode_tokens),
        max_rank=training.rank,
        max_adapters=1,
    )
    with Publisher(engine, model=model, base=name, directory=directory / "published") as publisher:
        for step in range(steps):
            started = time.monotonic()

            # 1. The engine serves the adapter as it is now, under a name of its own.
            version = versioned(group_source.name, step)
            publisher.publish(version, LoRA(weights, lora.scale))

            # 2. It plays: groups_per_step tasks, G rollouts of each.
            G, first = training.num_generations, step * training.groups_per_step
            numbers = range(first, first + training.groups_per_step)
            specs = [spec for number in numbers for spec in group_source.specs(number, G, version)]
            rollouts = collect(specs, engine=engine, renderer=renderer, settings=rollout, base=name)
            groups = [Group(tuple(rollouts[i : i + G])) for i in range(0, len(rollouts), G)]

            # 3. Advantages: how much better a rollout was than its group. Broken rollouts have none.
            advantages = group_advantages([group.rewards for group in groups], training.scale_rewards)
            batch = [
                sample
                for number, (group, advantages_G) in enumerate(zip(groups, advantages, strict=True))
                if group.informative
                for trajectory, advantage in zip(group.graded, advantages_G, strict=True)
                for sample in samples(trajectory, float(advantage), group=number)
            ]

            # 4. Loss, gradient, optimiser. A packed row holds the prompt of a group once.
            losses = []
            if batch:  # empty if all groups are constant
                micros = micro_batches(
                    batch,
                    micro_batch_tokens=training.micro_batch_tokens,
                    loss_type=training.loss_type,
                    max_completion_length=training.max_completion_length,
                    row_tokens=training.row_tokens,
                )
                for _ in range(training.num_iterations):
                    parts = [gradient_of(weights, params, micro) for micro in micros]
                    loss, gradient = jax.tree.map(lambda *leaves: sum(leaves), *parts)
                    weights, state = move(weights, state, gradient)
                    losses.append(float(loss))

            rewards = np.concatenate([group.rewards for group in groups])
            report(
                {
                    "step": step + 1,
                    "reward": float(rewards.mean()),
                    "loss": float(np.mean(losses)) if losses else 0.0,
                    "trained_tokens": float(sum(sample.trained_T.sum() for sample in batch)),
                    "seconds": time.monotonic() - started,
                }
            )

    # 5. The adapter, for PEFT and for inference servers.
    save_peft(LoRA(weights, lora.scale), model, directory / "peft", name)
    return directory / "peft"


def main() -> None:
    """Read the command line, train, and print the reward of each step."""
    parser = argparse.ArgumentParser(
        description="GRPO on one page.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--base", default="assets/tiny_agent", help="Hugging Face directory of the base model")
    parser.add_argument("--environment", default=ENVIRONMENT, help="module:Class, a target, or an environment manifest")
    parser.add_argument("--directory", type=Path, default=Path("runs/one_page"), help="where the adapter is written")
    parser.add_argument("--steps", type=int, default=15, help="steps of training")
    parser.add_argument("--seed", type=int, default=0, help="of tasks, sampling and the initial adapter")
    arguments = parser.parse_args()
    print(f"{arguments.environment}, {arguments.steps} steps")
    path = grpo(
        arguments.base,
        arguments.environment,
        arguments.directory,
        steps=arguments.steps,
        seed=arguments.seed,
        report=lambda row: print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True),
    )
    print(f"the adapter is in {path}")


if __name__ == "__main__":
    main()
