"""Settings of training: one line for each impossible value, and the choices are rows of the loss's tables."""

import subprocess
import sys
import typing
from pathlib import Path

import pytest
import toy

from trace_jax.errors import UserError
from trace_jax.models.settings import TARGETS
from trace_jax.training import loss
from trace_jax.training.settings import GRPOConfig, KLEstimator, LossType, RatioLevel

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("settings", "named"), [
    ({"max_steps": None}, "training.max_steps and training.max_rollouts are both None"),
    ({"max_steps": -1}, "training.max_steps is -1"),
    ({"loss_type": "bnpo"}, "training.loss_type is 'bnpo'.*'grpo', 'dapo' or 'dr_grpo'"),
    ({"kl_estimator": "k4"}, "training.kl_estimator is 'k4'"),
    ({"scale_rewards": "std"}, "training.scale_rewards is 'std'"),
    ({"importance_sampling_level": "turn"}, "training.importance_sampling_level is 'turn'"),
    ({"remat": "some"}, "training.remat is 'some'"),
    ({"epsilon": NAN}, "training.epsilon is nan"),
    ({"epsilon": 1.0}, "training.epsilon is 1.0"),
    ({"beta": -0.1}, "training.beta is -0.1"),
    ({"tis_cap": 0.0}, "training.tis_cap is 0.0"),
    ({"max_staleness": -1}, "training.max_staleness is -1"),
    ({"group_seconds": 0.0}, "training.group_seconds is 0.0"),
    ({"icepop_low": 1.0}, "training.icepop_low is 1.0"),
    ({"icepop_high": 0.9}, "training.icepop_high is 0.9"),
    ({"icepop_high": INF}, "training.icepop_high is inf"),
    ({"num_generations": 1}, "training.num_generations is 1"),
    ({"stop_reward": 1.5}, "training.stop_reward is 1.5"),
    ({"snapshots": (0.5, 2.0)}, "training.snapshots holds 2.0"),
    ({"snapshots": (NAN,)}, "training.snapshots holds nan"),
    ({"learning_rate": INF}, "training.learning_rate is inf"),
    ({"alpha": NAN}, "training.alpha is nan"),
    ({"rank": "16"}, "training.rank is '16'"),
    ({"target_modules": ("q_proj", "qkv")}, "training.target_modules holds 'qkv': use some of q_proj"),
    ({"target_modules": ()}, "training.target_modules is \\(\\)"),
    ({"target_modules": ("q_proj", "q_proj")}, "name each projection once"),
    ({"row_tokens": 512, "micro_batch_tokens": 256}, "training.row_tokens is 512.*training.micro_batch_tokens, 256"),
])  # fmt: skip
def test_impossible_settings_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        GRPOConfig(**settings)


def test_defaults_make_a_run():
    config = GRPOConfig()
    assert config.max_steps == 40 and config.max_rollouts is None and config.target_modules == TARGETS
    assert GRPOConfig(alpha=8).alpha == 8.0 and isinstance(GRPOConfig(alpha=8).alpha, float)
    assert GRPOConfig(max_steps=None, max_rollouts=100).max_rollouts == 100


@pytest.mark.parametrize(("choices", "table"), [
    (RatioLevel, loss.SURROGATES), (KLEstimator, loss.KL_ESTIMATORS), (LossType, loss.AGGREGATIONS)
])  # fmt: skip
def test_every_choice_is_a_row_of_its_table(choices, table):
    assert set(typing.get_args(choices)) == set(table)


def test_greedy_rollouts_are_refused_before_anything_is_played(tmp_path):
    toy.Toy.resets = 0
    with pytest.raises(UserError, match="rollout.temperature is 0: greedy rollouts"):
        toy.run(tmp_path, rollout=toy.RolloutSettings(temperature=0.0))
    assert toy.Toy.resets == 0 and not list(tmp_path.iterdir())


def test_settings_and_the_public_names_need_no_jax():
    """``--help`` of a program prints the settings in a moment."""
    program = (
        "import sys; from trace_jax.training import GRPOConfig; import trace_jax.training as face; "
        "assert 'jax' not in sys.modules; assert all(getattr(face, name) for name in face.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
