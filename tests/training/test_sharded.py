"""Eight devices compute what one computes: loss terms and gradients, for every axis alone and combined."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from gradients import assert_close, fresh, gradients, groups_of_samples

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.execution import Execution
from trace_jax.models.sharding import check_mesh
from trace_jax.parallel.mesh import MeshSettings, make_mesh
from trace_jax.training.learner import Learner
from trace_jax.training.settings import GRPOConfig

sys.path.append(str(Path(__file__).parents[1] / "models"))
from forward import dense_and_experts, noisy_decoder  # noqa: E402

DENSE, EXPERTS = dense_and_experts(8, 8)
ALONE = [dict(data=8), dict(data=1, fsdp=8), dict(data=1, tensor=8), dict(data=1, expert=8)]
TOGETHER = [dict(data=2, fsdp=2, tensor=2), dict(data=1, fsdp=2, tensor=2, expert=2), dict(data=2, tensor=2, expert=2)]


@pytest.fixture(scope="module", params=[DENSE, EXPERTS], ids=["dense", "experts"])
def case(request):
    """A decoder, two adapters, samples, and what one device makes of them."""
    rng = np.random.default_rng()
    decoder, lora = noisy_decoder(rng, request.param), fresh(rng, request.param, adapters=2)
    samples = groups_of_samples(rng, 96, 8, 4, adapters=2)
    return decoder, lora, samples, gradients(decoder, lora, samples, tokens=512)


def check_sharded(mesh, case):
    decoder, lora, samples, expected = case
    assert_close(gradients(decoder, lora, samples, MeshSettings(**mesh), tokens=256), expected)


@pytest.mark.parametrize("mesh", TOGETHER, ids=lambda sizes: str(MeshSettings(**sizes)))
def test_sharded_equals_unsharded(mesh, case):
    check_sharded(mesh, case)


@pytest.mark.slow  # every axis is in a mesh above, together with others
@pytest.mark.parametrize("mesh", ALONE, ids=lambda sizes: str(MeshSettings(**sizes)))
def test_sharded_over_all_devices_of_an_axis_equals_unsharded(mesh, case):
    check_sharded(mesh, case)


@pytest.mark.parametrize(
    "remat,experts",
    [
        ("full", "capacity"),  # as on a GPU
        pytest.param("attention", "ragged", marks=pytest.mark.slow),
        pytest.param("projections", "capacity", marks=pytest.mark.slow),  # as on a CPU, and as the meshes above
    ],
)
def test_layout_and_rematerialisation_change_nothing(remat, experts, case):
    decoder, lora, samples, expected = case
    execution = Execution(attention_rows=False, experts=experts, remat=remat, logits_elements=96 * 16)
    mesh = MeshSettings(data=1, fsdp=2, tensor=2, expert=2)
    assert_close(gradients(decoder, lora, samples, mesh, execution, tokens=256), expected)


@pytest.mark.parametrize(
    "mesh,words",
    [
        (dict(data=1, tensor=8), "tensor 8 does not divide num_attention_heads 4: use tensor 4"),
        (dict(data=2, tensor=4), "tensor 4 does not divide num_key_value_heads 2: use tensor 2"),
        (dict(data=1, fsdp=8), "fsdp 8 does not divide hidden_size 36: use fsdp 6"),
        (dict(data=1, expert=8), "expert 8 does not divide num_experts 6: use expert 6"),
    ],
)
def test_meshes_that_do_not_fit_the_model_are_refused(mesh, words):
    model = DecoderConfig(
        96, 36, 1, 4, 2, 8, 0, model_type="qwen3_moe", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16
    )
    with pytest.raises(UserError, match=words):
        check_mesh(model, make_mesh(MeshSettings(**mesh)))


@pytest.mark.parametrize(
    "mesh,words", [(dict(data=3), "3 devices, but there are 8"), (dict(fsdp=16), "multiple of 16")]
)
def test_meshes_that_do_not_fit_the_devices_are_refused(mesh, words):
    with pytest.raises(UserError, match=words):
        make_mesh(MeshSettings(**mesh))


def test_axes_must_be_positive():
    with pytest.raises(UserError, match="at most one may be -1"):
        MeshSettings(data=-1, fsdp=-1)
    with pytest.raises(UserError, match="must be positive"):
        MeshSettings(tensor=0)


def test_the_state_of_the_optimiser_is_split_as_the_weights_are():
    rng = np.random.default_rng()
    mesh = make_mesh(MeshSettings(data=1, fsdp=2, tensor=2, expert=2))
    config = GRPOConfig(micro_batch_tokens=48)
    learner = Learner(noisy_decoder(rng, EXPERTS), config, temperature=1.0, seed=0, mesh=mesh)

    def check():
        adam = learner.optimizer_state[1][0]
        for moments in (adam.mu, adam.nu):
            for moment, weight in zip(jax.tree.leaves(moments), jax.tree.leaves(learner.weights), strict=True):
                assert moment.sharding.is_equivalent_to(weight.sharding, moment.ndim)
                assert moment.addressable_shards[0].data.shape == weight.addressable_shards[0].data.shape

    check()
    learner.update(groups_of_samples(rng, 96, 2, 4))
    check()
