"""A sweep: which meshes there are, what is never compiled, and that finished plans are not made again."""

from dataclasses import replace

import pytest
from test_job import DENSE, TRAINING

from launch.plan_config import configured
from trace_jax.errors import UserError
from trace_jax.parallel.mesh import MeshSettings
from trace_jax.planning.job import Run
from trace_jax.planning.sweep import meshes, on_meshes, speed, sweep, variants
from trace_jax.planning.topology import parse_topology

pytest.importorskip("libtpu")

RUN = Run(DENSE, TRAINING, MeshSettings(), prompt_tokens=128, completion_tokens=128)


def test_all_meshes_that_the_model_can_be_split_over():
    found = set(map(str, meshes(RUN, parse_topology("v5e:2x2"))))
    sizes = [(4, 1, 1), (2, 1, 2), (2, 2, 1), (1, 2, 2), (1, 4, 1)]  # two key heads: tensor 4 cannot be
    assert found == {str(MeshSettings(data, fsdp, tensor, 1)) for data, fsdp, tensor in sizes}
    two = [mesh.data for mesh in meshes(RUN, parse_topology("2*v5e:2x2"))]
    assert two and all(data % 2 == 0 for data in two)


def test_what_cannot_fit_is_left_out():
    from configs import qwen3_8b, qwen3_30b_a3b

    eight = on_meshes(configured(qwen3_8b.get_config()), parse_topology("v5e:2x4"), "O0")
    assert eight and all(candidate.least_memory < 15.75 * 2**30 for candidate in eight)
    # 16.4 GB of weights: a chip cannot hold all, and half leaves room.
    assert {candidate.run.mesh.fsdp * candidate.run.mesh.tensor for candidate in eight} == {2, 4, 8}
    with pytest.raises(UserError, match="fits on none of .* meshes, .*: use more chips"):
        on_meshes(configured(qwen3_30b_a3b.get_config()), parse_topology("v5e:2x2"), "O0")


def test_a_sweep_goes_on_where_it_was(tmp_path):
    first, *rest = on_meshes(RUN, parse_topology("v5e:2x2"), "O0")
    assert first.run.mesh == MeshSettings(4, 1, 1, 1) and first.sent == 0 < rest[0].sent
    assert {
        (candidate.run.training.micro_batch_tokens, candidate.run.training.remat) for candidate in variants(first)
    } == {(size, remat) for size in (256, 512, 1024) for remat in ("full", "attention")} - {(512, "full")}
    refused = replace(first, run=replace(RUN, mesh=MeshSettings(1, 1, 4, 1)))
    told = []
    ranking = sweep([first, refused], tmp_path, 1, lambda name, problem: told.append((name, problem)))
    assert [candidate for candidate, _ in ranking] == [first] and speed(ranking[0][1]) > 0
    assert ranking[0][1].programs[0].memory.peak > first.least_memory
    assert sorted(problem.split(":")[0] for _, problem in told) == [
        "",
        "mesh axis tensor 4 does not divide num_key_value_heads 2",
    ]
    assert [file.name for file in tmp_path.iterdir()] == [first.path(tmp_path).name]

    written = first.path(tmp_path).stat().st_mtime_ns
    assert sweep([first], tmp_path, 1, lambda *_: None) == ranking
    assert first.path(tmp_path).stat().st_mtime_ns == written
