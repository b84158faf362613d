"""Claim: what docs/targets.md tells a newcomer to write is a sound target of a useful size."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from trace_jax.environments.checks.target import check_all
from trace_jax.environments.registry import TARGETS, load_target

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "targets.md").read_text()


@pytest.fixture
def lights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "lights.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lights", raising=False)
    return code


def test_the_target_of_the_page_is_short_and_sound(lights: str):
    assert len(lights[: lights.index("def lights")].splitlines()) <= 60
    found = list(check_all(load_target("lights:lights"), "lights:lights", {}, 20, lambda done, total: None))
    assert [finding for finding in found if finding.verdict != "ok"] == []


def test_the_entry_point_of_the_page_names_it(lights: str):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    ((group, points),) = tomllib.loads(text)["project"]["entry-points"].items()
    module, _, name = points["lights"].partition(":")
    assert group == TARGETS.group and callable(getattr(importlib.import_module(module), name))
