"""TRL's GRPO step (GRPOTrainer, PEFT LoRA, ``transformers`` generation) on a random Qwen3.

taskset -c 0 .venv-trl/bin/python -m benchmarks.peers.trl_step --shape=A
"""

import os
import tempfile
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.peers import common


class OnStepEnd(TrainerCallback):
    def __init__(self, clock: common.Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.mark()


def main() -> None:
    arguments = common.arguments()
    shape, clock = common.SHAPES[arguments.shape], common.Clock()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=shape.vocab, hidden_size=common.WIDTH, intermediate_size=common.FEED_FORWARD,
            num_hidden_layers=common.LAYERS, num_attention_heads=common.HEADS, num_key_value_heads=common.KV_HEADS,
            head_dim=common.HEAD_WIDTH, max_position_embeddings=4096, tie_word_embeddings=True,
            pad_token_id=common.PAD, bos_token_id=common.BOS, eos_token_id=common.EOS, attn_implementation="sdpa",
        )
    ).float()  # fmt: skip
    prompts = [common.prompt(i, shape.prompt, shape.vocab) for i in range(arguments.steps + 2)]

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [common.reward(completion, shape.completion) for completion in completions]

    with tempfile.TemporaryDirectory() as directory:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=common.fast_tokenizer(shape.vocab),
            peft_config=LoraConfig(
                r=common.RANK, lora_alpha=common.RANK, target_modules=list(common.TARGETS), task_type="CAUSAL_LM"
            ),
            args=GRPOConfig(
                output_dir=directory, use_cpu=True, bf16=False, fp16=False, report_to="none", save_strategy="no",
                logging_steps=1, per_device_train_batch_size=common.GROUP, num_generations=common.GROUP,
                gradient_accumulation_steps=1, steps_per_generation=1, max_steps=arguments.steps,
                max_completion_length=shape.completion, beta=0.0,
                epsilon=common.CLIP, max_grad_norm=common.MAX_GRAD_NORM, learning_rate=common.LEARNING_RATE,
                temperature=1.0, gradient_checkpointing=False, disable_tqdm=True, log_level="error",
                dataloader_num_workers=0,
                generation_kwargs={"min_new_tokens": shape.completion},  # no completion ends early
            ),
            callbacks=[OnStepEnd(clock)],
        )  # fmt: skip
        trainer._generate_single_turn = clock.timed("rollout", trainer._generate_single_turn)
        clock.mark()
        trainer.train()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    key = "completions/mean_length"
    clock.report("TRL", [entry[key] for entry in trainer.state.log_history if key in entry], trained)


if __name__ == "__main__":
    main()
