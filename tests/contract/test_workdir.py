"""A work directory goes on with its own configuration only."""

import json

import pytest
from etils import epath

from trace_jax.contract.workdir import FILE, fingerprint, open_workdir
from trace_jax.errors import UserError

CONFIG = {"seed": 0, "training": {"rank": 8, "targets": ("q_proj", "v_proj")}}


def refusal(path, config) -> str:
    with pytest.raises(UserError) as error:
        open_workdir(path, config)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_same_config_goes_on(tmp_path):
    assert open_workdir(tmp_path / "run", CONFIG) == epath.Path(tmp_path / "run")
    before = (tmp_path / "run" / FILE).read_bytes()
    (tmp_path / "run" / "trajectories.jsonl").touch()
    reordered = {"training": {"targets": ["q_proj", "v_proj"], "rank": 8}, "seed": 0}
    open_workdir(tmp_path / "run", reordered)
    assert (tmp_path / "run" / FILE).read_bytes() == before


def test_another_config_is_refused_naming_both_and_the_difference(tmp_path):
    open_workdir(tmp_path, CONFIG)
    other = {"seed": 0, "training": {"rank": 16, "targets": ("q_proj", "v_proj"), "beta": 0.1}}
    message = refusal(tmp_path, other)
    assert fingerprint(CONFIG) in message and fingerprint(other) in message
    assert "training.rank was 8, is 16" in message and "training.beta was absent, is 0.1" in message
    assert "choose a new work directory" in message


def test_another_version_is_refused_naming_both(tmp_path):
    open_workdir(tmp_path, CONFIG)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, "schema_version": 99}))
    message = refusal(tmp_path, CONFIG)
    assert "99" in message and "reads 1" in message and "new work directory" in message


def test_half_written_guard_is_refused(tmp_path):
    (tmp_path / FILE).write_text("{")
    assert FILE in refusal(tmp_path, CONFIG)


def test_a_directory_of_something_else_is_refused_and_scraps_are_not(tmp_path):
    (tmp_path / ".workdir.json.abc.tmp").touch()
    open_workdir(tmp_path, CONFIG)
    (tmp_path / FILE).rename(tmp_path / "thesis.tex")
    assert "thesis.tex" in refusal(tmp_path, CONFIG)


def test_a_config_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="config"):
        open_workdir(tmp_path / "run", {"seed": object()})
    assert not (tmp_path / "run").exists()


def test_object_store(store):
    open_workdir(store / "run", CONFIG)
    open_workdir(store / "run", CONFIG)
    refusal(store / "run", {"seed": 1})
