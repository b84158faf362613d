"""Every setting is declared once, with type, bounds and meaning, and is checked at the door."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from configs import base
from trace_jax.errors import UserError
from trace_jax.planning.settings import PlanSettings
from trace_jax.run_settings import read_section, read_settings, sections, settings_help
from trace_jax.settings import describe

ROOT = Path(__file__).parents[1]
CLASSES = (*sections(), PlanSettings)
SETTINGS = [(cls, *row) for cls in CLASSES for row in describe(cls)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.section)
def test_the_configuration_has_the_defaults_of_the_class(cls) -> None:
    config = base.get_config()
    assert read_section(config, cls) == cls()
    assert set(config[cls.section]) == {field.name for field in fields(cls)}


def test_every_setting_has_a_meaning_and_is_in_the_help() -> None:
    text = settings_help(CLASSES)
    for cls, name, kind, default, meaning in SETTINGS:
        assert len(meaning) > 5 and not meaning.endswith(".")
        assert f"{cls.section}.{name}: {kind} = {default!r}\n        {meaning}" in text


@pytest.mark.parametrize(
    "cls,name", [(row[0], row[1]) for row in SETTINGS], ids=lambda value: getattr(value, "section", value)
)
def test_a_value_of_another_type_is_refused_by_name(cls, name) -> None:
    with pytest.raises(UserError, match=rf"^{cls.section}\.{name} is .*: it should be"):
        cls(**{name: object()})


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"engine.slots": 0}, "engine.slots is 0: it should be greater than or equal to 1"),
        ({"engine.kind": "vllm"}, "engine.kind is 'vllm': it should be 'embedded' or 'sglang'"),
        ({"engine.kind": "sglang"}, "engine.url '' names no servers"),
        ({"engine.kind": "sglang", "engine.url": "localhost:3000"}, "engine.url 'localhost:3000' names no servers"),
        ({"engine.wait_seconds": float("inf")}, "engine.wait_seconds is inf: it should be a finite number"),
        ({"engine.capacity": 100}, "engine.capacity 100 is below rollout.max_episode_tokens 512"),
        ({"rollout.temperature": -0.5}, "rollout.temperature is -0.5"),
        ({"rollout.temperature": float("nan")}, "rollout.temperature is nan"),
        ({"training.rank": 0}, "training.rank is 0"),
        ({"training.learning_rate": 0.0}, "training.learning_rate is 0.0"),
        ({"training.max_steps": None}, "training.max_steps and training.max_rollouts are both None"),
        ({"routing.top_p": 1.5}, "routing.top_p is 1.5"),
        ({"base.dtype": "float16"}, "base.dtype is 'float16': it should be 'float32' or 'bfloat16'"),
        ({"mesh.fsdp": 0}, "axes must be positive"),
        ({"mesh.fsdp": -1}, "at most one may be -1"),
        ({"seed": -1}, "seed is -1"),
        ({"routing.policy": "all"}, "routing.policy is 'all'"),
        ({"target.parameters": "[1]"}, "target.parameters is '[1]': it should be a JSON object, such as {"),
        ({"target.parameters": "{"}, "target.parameters is '{': it should be a JSON object"),
        ({"synthesis.calibration_groups": 0}, "synthesis.calibration_groups is 0"),
    ],
)
def test_what_no_program_could_use_is_refused_with_value_and_bound(changes, words) -> None:
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=re.escape(words)):
        read_settings(config)


@pytest.mark.parametrize("name", ["quickstart", "smollm2", "analyze_tau_bench", "qwen3_8b", "qwen3_30b_a3b"])
def test_every_shipped_run_can_be_read(name) -> None:
    read_settings(importlib.import_module(f"configs.{name}").get_config())


def test_the_config_is_locked() -> None:
    config = base.get_config()
    with pytest.raises(AttributeError):
        config.training.colour = "red"


def test_a_work_directory_does_not_belong_to_its_servers() -> None:
    config = base.get_config()
    one = read_settings(config).identity()
    config.engine.url, config.engine.wait_seconds = "http://elsewhere:1", 7.0
    assert read_settings(config).identity() == one
    config.engine.capacity = 1024
    assert read_settings(config).identity() != one


def test_a_dry_run_and_the_help_need_no_jax() -> None:
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, *_):\n"
        "        assert name not in ('jax', 'jaxlib', 'flax', 'torch', 'transformers'), name\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import configs.quickstart, configs.smollm2, trace_jax.program\n"
        "from trace_jax.run_settings import read_settings\n"
        "print(read_settings(configs.quickstart.get_config()).training.rank)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
