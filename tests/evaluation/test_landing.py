"""Which checkpoints are found while they are being written."""

import pytest
from adapter_files import FILES
from etils import epath

from evaluation.checkpoints import find_checkpoints
from evaluation.landing import Landing
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import write_document
from trace_jax.errors import UserError


def manifest(name):
    return AdapterManifest(
        name=name, capabilities=(), environments=(), base="b", rank=2, alpha=2.0, target_modules=("q_proj",),
        peft="peft", files=FILES, checkpoint="checkpoints", steps=4, rollouts=8, seed=0,
    )  # fmt: skip


def write_peft(directory, weights=b"w"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_model.safetensors").write_bytes(weights)
    (directory / "adapter_config.json").write_text("{}")


def names(landing, patient=True):
    return [checkpoint.name for checkpoint in landing.search(patient)]


def test_a_peft_directory_is_found_when_it_has_come_to_rest(tmp_path):
    landing = Landing([epath.Path(tmp_path)])
    assert names(landing) == [] and not landing.waiting
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text("{}")  # the weights are still to come
    assert names(landing) == []
    write_peft(tmp_path / "a")
    assert names(landing) == [] and landing.waiting
    write_peft(tmp_path / "a", b"more weights")
    assert names(landing) == [] and landing.waiting
    assert names(landing) == ["a"] and not landing.waiting
    assert names(Landing([epath.Path(tmp_path)]), patient=False) == ["a"]


def test_an_export_is_found_when_its_manifest_is_there(tmp_path):
    landing = Landing([epath.Path(tmp_path / "mine")])
    assert names(landing) == []  # the training has not begun
    with pytest.raises(UserError, match="mine: no such directory"):
        landing.search(patient=False)
    write_peft(tmp_path / "mine" / "snapshots" / "0008" / "peft")
    assert names(landing) == [] and not landing.complete()
    write_document(tmp_path / "mine" / "snapshots" / "0008" / "adapter.json", manifest("mine-0008"))
    assert names(landing) == ["mine-0008"] and not landing.complete()
    write_document(tmp_path / "mine" / "adapter.json", manifest("mine").replace(steps=8))
    assert names(landing) == ["mine-0008", "mine"] and landing.complete()
    found = landing.search(patient=True)
    assert [(c.adapter, c.step) for c in found] == [("mine", 4), ("mine", 8)]


def test_a_damaged_manifest_does_not_hide_the_others(tmp_path):
    write_document(tmp_path / "a" / "adapter.json", manifest("a"))
    write_peft(tmp_path / "b" / "peft")
    (tmp_path / "b" / "adapter.json").write_text("{")
    found = Landing([epath.Path(tmp_path)]).search(patient=False)
    assert [checkpoint.name for checkpoint in found] == ["a", "b"]
    with pytest.raises(UserError, match="b/adapter.json: not a valid AdapterManifest"):
        found[1].content()
    with pytest.raises(UserError, match="b/adapter.json: not a valid AdapterManifest"):
        find_checkpoints(epath.Path(tmp_path))
