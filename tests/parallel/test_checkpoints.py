"""Checkpoints: what goes in comes out, unfinished ones are never seen, foreign ones are refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trace_jax.errors import UserError
from trace_jax.parallel.checkpoints import Checkpoints
from trace_jax.parallel.mesh import MeshSettings, make_mesh

IDENTITY = {"base": "abc", "rank": 4, "targets": ("q_proj", "v_proj")}


def _state(seed):
    rng = np.random.default_rng(seed)
    a, n = rng.normal(size=(1, 2, 8, 4)), rng.normal(size=3)
    weights = {"q": {"a": jnp.asarray(a, jnp.float32)}, "n": jnp.asarray(n, jnp.bfloat16)}
    optimizer = optax.adamw(1e-3).init(weights)
    return {"weights": weights, "optimizer": optimizer, "key": jax.random.key(seed), "count": seed}


def _equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, other = jax.random.key_data(leaf), jax.random.key_data(other)
        assert getattr(leaf, "dtype", type(leaf)) == getattr(other, "dtype", type(other))
        np.testing.assert_array_equal(leaf, other)


def test_round_trip_is_bitwise_and_the_latest_wins(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, max_to_keep=2) as checkpoints:
        assert checkpoints.restore(_state(0)) is None
        for step in (1, 2, 5):
            checkpoints.save(step, _state(step))
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        step, state = checkpoints.restore(_state(0))
    assert step == 5
    _equal(state, _state(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5"]


def test_state_may_be_replaced_while_it_is_written(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        state = {"x": jnp.arange(1000.0)}
        checkpoints.save(1, state)
        state["x"] = state["x"] * 0
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        _, found = checkpoints.restore({"x": jnp.zeros(1000)})
    np.testing.assert_array_equal(found["x"], np.arange(1000.0))


def test_half_written_checkpoint_is_never_seen(tmp_path):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, _state(1))
    for step in (2, 3):  # the next that is saved, and one that is not
        torn = tmp_path / f"{step}.orbax-checkpoint-tmp"
        torn.mkdir()
        (torn / "_CHECKPOINT_METADATA").write_text("{")
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        step, _ = checkpoints.restore(_state(0))
        checkpoints.save(2, _state(2))
    assert step == 1 and (tmp_path / "2").is_dir() and not list(tmp_path.glob("*tmp*"))


def test_kept_are_the_last_those_of_a_period_and_the_best(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, max_to_keep=2, keep_period=4, keep_best=1) as checkpoints:
        for step in range(1, 12):
            checkpoints.save(step, {"x": jnp.ones(3) * step}, reward=1.0 if step == 5 else 0.1)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 5, 8, 10, 11]
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:  # of a run with another policy: nothing is lost at its start
        step, state = checkpoints.restore({"x": jnp.zeros(3)}, 5)
    assert step == 5 and float(state["x"][0]) == 5.0


def test_later_steps_are_dropped_and_can_be_saved_again(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, max_to_keep=4) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"x": jnp.ones(3) * step})
        checkpoints.drop_after(2)
        assert checkpoints.restore({"x": jnp.zeros(3)})[0] == 2
        checkpoints.save(3, {"x": jnp.ones(3) * 30})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3"]
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        assert float(checkpoints.restore({"x": jnp.zeros(3)})[1]["x"][0]) == 30.0


@pytest.mark.parametrize("sizes", [dict(data=1, fsdp=8), dict(data=1, tensor=4, expert=2), dict(data=1)], ids=str)
def test_restored_onto_another_mesh_bitwise(tmp_path, sizes):
    def placed(mesh, x, spec):
        return jax.device_put(x, NamedSharding(mesh, spec))

    value = np.random.default_rng().normal(size=(1, 8, 16)).astype(np.float32)
    first = make_mesh(MeshSettings(data=1, fsdp=4, tensor=2))
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, {"x": placed(first, value, P(None, "fsdp", "tensor")), "n": placed(first, value, P())})
    second = make_mesh(MeshSettings(**sizes), jax.devices()[: int(np.prod(list(sizes.values())))])
    state = {"x": placed(second, value * 0, P(None, "tensor", "fsdp")), "n": placed(second, value * 0, P("data"))}
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        _, found = checkpoints.restore(state)
    for name in state:
        assert found[name].sharding == state[name].sharding
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(("change", "message"), [
    ({"base": "xyz"}, r"/1: checkpoint has base 'abc', this run has 'xyz'"),
    ({"rank": 8}, r"rank 4, this run has 8"),
    ({"targets": ("q_proj",)}, r"targets \['q_proj', 'v_proj'\], this run has \['q_proj'\]"),
    ({"extra": 1}, r"extra None, this run has 1"),
])  # fmt: skip
def test_foreign_checkpoint_is_refused_with_both_values(tmp_path, change, message):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save(1, _state(1))
    with Checkpoints(tmp_path, IDENTITY | change) as checkpoints:
        with pytest.raises(UserError, match=message):
            checkpoints.restore(_state(0))


def _damage(path, how):
    if path.is_dir():
        shutil.rmtree(path)
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("name", "how"), [
    ("_CHECKPOINT_METADATA", "missing"),
    ("_CHECKPOINT_METADATA", "cut"),
    ("state/_METADATA", "missing"),
    ("state/_METADATA", "cut"),
    ("state/manifest.ocdbt", "cut"),
    ("state/d", "missing"),
    ("state", "missing"),
])  # fmt: skip
def test_damaged_checkpoint_is_named_and_without_it_the_one_before_is_used(tmp_path, name, how):
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(step))
    _damage(tmp_path / "2" / name, how)
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        named = f"^{tmp_path / '2'}: checkpoint cannot be read .*: if it is damaged, remove that directory"
        with pytest.raises(UserError, match=named) as found:
            checkpoints.restore(_state(0))
    assert "\n" not in str(found.value)
    shutil.rmtree(tmp_path / "2")
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        step, state = checkpoints.restore(_state(0))
        checkpoints.save(2, _state(2))
    assert step == 1 and (tmp_path / "2").is_dir()
    _equal(state, _state(1))
