"""Tunix's GRPO step (GRPOLearner, qwix LoRA, its own sampler) on a random Qwen3.

taskset -c 0 .venv-tunix/bin/python -m benchmarks.peers.tunix_step --shape=A
"""

import os
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}

import jax
import numpy as np
import optax
import qwix
from flax import nnx
from jax.sharding import Mesh
from tunix.models.qwen3 import model as qwen3
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from benchmarks.peers import common


def main() -> None:
    arguments = common.arguments()
    shape, clock = common.SHAPES[arguments.shape], common.Clock()
    base = qwen3.Qwen3(
        qwen3.ModelConfig(
            num_layers=common.LAYERS, vocab_size=shape.vocab, embed_dim=common.WIDTH, hidden_dim=common.FEED_FORWARD,
            num_heads=common.HEADS, head_dim=common.HEAD_WIDTH, num_kv_heads=common.KV_HEADS, norm_eps=1e-6,
            rope_theta=1_000_000, use_tied_embedding=True,
        ),
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    modules = "|".join(f".*{target}" for target in common.TARGETS)
    provider = qwix.LoraProvider(module_path=modules, rank=common.RANK, alpha=float(common.RANK))
    lora = qwix.apply_lora_to_model(base, provider, rngs=nnx.Rngs(1), **base.get_model_input())
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    optimizer = optax.chain(
        optax.clip_by_global_norm(common.MAX_GRAD_NORM), optax.adamw(common.LEARNING_RATE, weight_decay=0.0)
    )
    cluster = rl_cluster.ClusterConfig(
        role_to_mesh={role: mesh for role in roles},
        rollout_engine="vanilla",
        training_config=rl_cluster.RLTrainingConfig(
            actor_optimizer=optimizer, eval_every_n_steps=10**9, max_steps=arguments.steps
        ),
        rollout_config=base_rollout.RolloutConfig(
            max_tokens_to_generate=shape.completion, max_prompt_length=shape.prompt,
            kv_cache_size=shape.prompt + shape.completion + 1, temperature=1.0, top_p=1.0, top_k=None,
            eos_tokens=[shape.vocab + 5],  # never sampled: no completion ends early
        ),
    )  # fmt: skip
    lengths = []

    def reward(prompts: Any, completions: list[str], **_: Any) -> list[float]:
        # A step ends here, after the rollout. Until the next call come one update and the rollout of the next step.
        # The first step therefore contains two rollouts, and the last update is not counted.
        if lengths:
            clock.mark()
        lengths.append(sum(len(completion.split()) for completion in completions) / len(completions))
        return [common.reward(completion, shape.completion) for completion in completions]

    with mesh:
        engine = rl_cluster.RLCluster(
            actor=lora, reference=None, tokenizer=common.fast_tokenizer(shape.vocab), cluster_config=cluster
        )
        engine.generate = clock.timed("rollout", engine.generate)
        learner = grpo_learner.GRPOLearner(
            rl_cluster=engine,
            reward_fns=reward,
            algo_config=grpo_learner.GRPOConfig(
                num_generations=common.GROUP, num_iterations=1, beta=0.0, epsilon=common.CLIP
            ),
        )
        # Tunix adds a BOS and rounds a prompt up to a power of two, so the prompt has one word fewer.
        prompts = [common.prompt(i, shape.prompt - 1, shape.vocab) for i in range(arguments.steps + 1)]
        clock.mark()
        learner.train([{"prompts": np.array([text])} for text in prompts])
    clock.report("Tunix", lengths, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(lora, nnx.LoRAParam))))


if __name__ == "__main__":
    main()
