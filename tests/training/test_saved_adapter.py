"""The adapter of a checkpoint, against the export of the same training."""

import json
import shutil

import jax
import numpy as np
import pytest
import toy
from etils import epath

from evaluation.checkpoints import find_checkpoints
from evaluation.landing import Landing
from trace_jax.errors import UserError
from trace_jax.models.formats.peft import load_peft
from trace_jax.training.saved_adapter import load_saved_adapter


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "mine"
    manifest = toy.run(directory, max_steps=3, save_steps=1, max_to_keep=3, snapshots=(0.5,))
    return directory, manifest


def listing(directory):
    return {path.relative_to(directory): path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_a_checkpoint_holds_the_adapter_that_was_exported(trained):
    directory, manifest = trained
    before = listing(directory)
    saved = load_saved_adapter(directory / "checkpoints" / "3")
    exported = load_peft(directory / "peft", toy.parts()[0].config)
    assert saved.lora.targets == exported.targets and float(saved.lora.scale[0]) == float(exported.scale[0])
    jax.tree.map(np.testing.assert_array_equal, saved.lora.weights, exported.weights)
    assert (saved.base, saved.step, saved.rollouts) == (manifest.base, manifest.steps, manifest.rollouts)
    earlier = load_saved_adapter(directory / "checkpoints" / "2")
    assert (earlier.step, earlier.rollouts) == (2, manifest.rollouts * 2 // 3)
    assert not np.array_equal(earlier.lora.weights["q_proj"]["b"], saved.lora.weights["q_proj"]["b"])
    assert listing(directory) == before


def test_all_states_of_a_training_are_found_each_step_once(trained):
    directory, _ = trained
    found = find_checkpoints(epath.Path(directory))
    assert [(c.name, c.adapter, c.step, c.kind) for c in found] == [
        ("mine@1", "toy-adapter", 1, "orbax"),
        ("toy-adapter-00000024", "toy-adapter", 2, "manifest"),
        ("toy-adapter", "toy-adapter", 3, "manifest"),
    ]
    (single,) = find_checkpoints(epath.Path(directory / "checkpoints" / "3"))
    assert (single.name, single.step) == ("mine@3", 3)
    assert len({c.content() for c in found}) == 3


def test_content_does_not_depend_on_the_place(trained, tmp_path):
    directory, _ = trained
    shutil.copytree(directory, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("commit_success.txt"):
        path.write_text("Checkpoint commit was successful to another place")
    for ours, copy in zip(*(find_checkpoints(epath.Path(d)) for d in (directory, tmp_path / "copy")), strict=True):
        assert ours.content() == copy.content()


def test_damage_and_disappearance_are_one_line(trained, tmp_path):
    directory, _ = trained
    shutil.copytree(directory / "checkpoints" / "3", tmp_path / "3")
    for path in (tmp_path / "3" / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
    for path in (tmp_path / "3", tmp_path / "4"):
        with pytest.raises(UserError, match="checkpoint cannot be read .* leave it out") as found:
            load_saved_adapter(path)
        assert "\n" not in str(found.value)


def test_a_checkpoint_that_is_being_written_is_not_found(trained, tmp_path):
    """Orbax writes under a temporary name; in an object store under the final one, and the mark of success last."""
    directory, _ = trained
    root = tmp_path / "checkpoints"
    shutil.copytree(directory / "checkpoints" / "1", root / "1")
    shutil.copytree(directory / "checkpoints" / "2", root / "2.orbax-checkpoint-tmp-1234")
    shutil.copytree(directory / "checkpoints" / "2", root / "3")
    (root / "3" / "commit_success.txt").unlink()
    shutil.copytree(directory / "checkpoints" / "2", root / "4")
    metadata = json.loads((root / "4" / "_CHECKPOINT_METADATA").read_text())
    (root / "4" / "_CHECKPOINT_METADATA").write_text(json.dumps({**metadata, "commit_timestamp_nsecs": None}))
    assert [c.step for c in Landing([epath.Path(tmp_path)]).search(patient=True)] == [1]
