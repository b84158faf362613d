"""configs/base.py holds every field, documented, and the training section is GRPOConfig's."""

import dataclasses
import re
from pathlib import Path

import pytest

from configs import base
from trace_jax.training.settings import GRPOConfig

SOURCE = Path(base.__file__).read_text(encoding="utf-8")
UNIT = r"(int|float|str|bool|tuple of \w+)( or None)?( in \[0, 1\])?[:,] \S"


def leaves(config, prefix=""):
    for name in config:
        value = config.get(name)
        if hasattr(value, "is_locked"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_field_is_documented_with_its_type():
    body = re.sub(r"\(\n.*?\n    \)", "()", SOURCE, flags=re.DOTALL)  # the one value that takes several lines
    documented = dict(re.findall(r"^    (?:config\.)?(\w+(?:\.\w+)?) = .*?  # (.*)$", body, flags=re.MULTILINE))
    names = set(leaves(base.get_config()))
    assert documented.keys() == names
    assert [name for name, comment in documented.items() if not re.match(UNIT, comment)] == []


def test_training_section_is_that_of_grpo():
    section = base.get_config().training
    fields = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    assert {name: section.get(name) for name in section} == fields
    assert GRPOConfig(**section.to_dict()) == GRPOConfig()


def test_the_config_is_locked():
    config = base.get_config()
    with pytest.raises(AttributeError):
        config.training.colour = "red"
