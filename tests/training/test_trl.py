"""A whole GRPO step against TRL's own code: from sampled tokens and rewards to the loss and its LoRA gradients."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from gradients import gradients
from tokenizers import Tokenizer, models, pre_tokenizers

sys.path.append(str(Path(__file__).parents[1] / "models"))
from forward import noisy_lora  # noqa: E402
from torch_reference import torch_model  # noqa: E402

from trace_jax.models.formats.huggingface import load  # noqa: E402
from trace_jax.models.formats.peft import load_peft, save_peft  # noqa: E402
from trace_jax.training.advantages import group_advantages  # noqa: E402
from trace_jax.training.sample import Sample  # noqa: E402
from trace_jax.training.settings import GRPOConfig  # noqa: E402

torch = pytest.importorskip("torch")

G, GROUPS, VOCABULARY, LENGTH_BOUND = 4, 2, 97, 16


def setup_module():
    """TRL takes seconds to import: only the process that runs this file does it."""
    global datasets, peft, transformers, trl
    trl, datasets, peft, transformers = map(pytest.importorskip, ("trl", "datasets", "peft", "transformers"))


class Case:
    """A model with an adapter on disk, and episodes of several turns: what was sampled is marked, the rest is not."""

    def __init__(self, rng, directory):
        base = torch_model("qwen3", True, int(rng.integers(2**31)))
        base.save_pretrained(directory / "base")
        self.directory = directory
        self.decoder, model = load(directory / "base")
        save_peft(noisy_lora(rng, model, 4, 8.0, ("q_proj", "v_proj", "down_proj")), model, directory / "adapter", "b")
        self.lora = load_peft(directory / "adapter", model)
        self.prompts = [
            list(map(int, rng.integers(0, VOCABULARY, 5 + group))) for group in range(GROUPS) for _ in range(G)
        ]
        self.completions, self.sampled, self.logprobs = [], [], []
        for length in rng.integers(4, LENGTH_BOUND, G * GROUPS):
            self.completions.append(list(map(int, rng.integers(0, VOCABULARY, length))))
            sampled = rng.random(length) < 0.7
            sampled[[0, -1]] = True
            self.sampled.append(sampled.astype(int).tolist())
            self.logprobs.append((-rng.gamma(8.0, 0.6, length)).tolist())
        self.rewards = rng.random(G * GROUPS)

    def samples(self, config):
        """The episodes as the learner gets them."""
        advantages = group_advantages(list(self.rewards.reshape(GROUPS, G)), config.scale_rewards)
        return [
            Sample(
                np.array(prompt + completion, np.int32),
                np.array([0] * len(prompt) + sampled, bool),
                np.array([0.0] * len(prompt) + logprobs) * np.array([0] * len(prompt) + sampled),
                float(advantage),
                group=index // G,
            )
            for index, (prompt, completion, sampled, logprobs, advantage) in enumerate(
                zip(
                    self.prompts, self.completions, self.sampled, self.logprobs, np.concatenate(advantages), strict=True
                )
            )
        ]

    def trainer(self, **settings):
        """TRL's trainer on the same model, adapter, episodes and rewards."""
        base = transformers.AutoModelForCausalLM.from_pretrained(self.directory / "base", dtype=torch.float32)
        policy = peft.PeftModel.from_pretrained(base, self.directory / "adapter", is_trainable=True)
        words = Tokenizer(models.WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trl.GRPOTrainer(
            model=policy,
            reward_funcs=lambda completions, **_: self.rewards.tolist(),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["1 2 3"] * G * GROUPS}),
            processing_class=transformers.PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="0", eos_token="1", unk_token="0"
            ),
            args=trl.GRPOConfig(
                output_dir=str(self.directory / "trl"), use_cpu=True, bf16=False, fp16=False, report_to="none",
                per_device_train_batch_size=G * GROUPS, num_generations=G, gradient_accumulation_steps=1,
                steps_per_generation=1, max_completion_length=LENGTH_BOUND, gradient_checkpointing=False,
                use_bias_correction_kl=False,  # it would weigh the KL by the importance ratio
                **settings,
            ),
        )  # fmt: skip
        trainer._generate = lambda prompts: (
            self.prompts, self.completions, self.sampled, ["1"] * len(prompts), self.logprobs, {}, None, None
        )  # fmt: skip
        trainer.current_gradient_accumulation_steps = 1
        if "ref" in policy.peft_config:  # for TRL the reference is the adapter it was given; for us it is the base
            policy.delete_adapter("ref")
        return trainer


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(np.random.default_rng(), tmp_path_factory.mktemp("trl"))


def trl_step(case, corrected=None, **settings):
    """TRL's advantages, loss and gradients by the names of their parameters."""
    trainer = case.trainer(**settings)
    if corrected is not None:  # TRL knows the sampler's log-probabilities with vLLM alone, which is not needed here
        trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
        mode, low, high = corrected
        trainer.vllm_importance_sampling_mode = mode
        trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max = low, high
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": "1 2 3"}] * G * GROUPS)
    if corrected is None:  # the sampler is the old policy
        inputs["old_per_token_logps"] = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(values) for values in case.logprobs], batch_first=True
        )
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    gradient = {name: p.grad.numpy() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return inputs["advantages"].numpy(), float(loss.detach()), gradient


BOTH = [
    pytest.param({}, None, marks=pytest.mark.slow),  # test_learner holds the defaults
    ({"loss_type": "grpo", "importance_sampling_level": "sequence", "scale_rewards": "batch"}, None),
    ({"loss_type": "dr_grpo", "epsilon_high": 0.28, "beta": 0.1, "scale_rewards": "none"}, None),
    ({"loss_type": "grpo", "beta": 0.05, "temperature": 0.7}, None),
    pytest.param(  # test_loss compares this correction with TRL's formula
        {"tis_cap": 1.5}, ("token_truncate", None, 1.5), marks=pytest.mark.slow
    ),
    ({"loss_type": "grpo", "icepop_low": 0.5, "icepop_high": 2.0}, ("token_mask", 0.5, 2.0)),
]


@pytest.mark.parametrize(("settings", "corrected"), BOTH)
def test_a_step_equals_trls_own(case, settings, corrected):
    own = dict(settings)
    temperature = own.pop("temperature", 1.0)
    config = GRPOConfig(max_completion_length=LENGTH_BOUND, **own)
    theirs = {name: value for name, value in settings.items() if name not in ("tis_cap", "icepop_low", "icepop_high")}
    defaults = {"loss_type": "dapo", "beta": 0.0, "scale_rewards": "group", "epsilon": 0.2}
    advantages, loss, gradient = trl_step(case, corrected, **(defaults | theirs))

    samples = case.samples(config)
    np.testing.assert_allclose([sample.advantage for sample in samples], advantages, atol=1e-5)
    ours, terms = gradients(case.decoder, case.lora, samples, config=config, temperature=temperature, tokens=1024)
    assert float(terms["loss"][0]) == pytest.approx(loss, rel=2e-4, abs=2e-5)
    compared = 0
    for target, pair in ours.items():
        for layer in range(case.decoder.config.num_layers):
            for name, values in (("lora_A", pair["a"]), ("lora_B", pair["b"])):
                (found,) = [
                    g for key, g in gradient.items() if f"layers.{layer}." in key and f"{target}.{name}." in key
                ]
                scale = max(np.abs(found).max(), 1e-3)
                np.testing.assert_allclose(
                    values[0, layer].T, found, rtol=0, atol=2e-4 * scale, err_msg=f"{target} {name}"
                )
                compared += 1
    assert compared == len(gradient) and compared == 2 * 3 * case.decoder.config.num_layers
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(ours)) > 1e-3
