"""Metrics reach the JSON Lines durably, TensorBoard's own reader, and never as NaN by accident."""

import importlib.util
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import crc32c

from trace_jax.errors import UserError
from trace_jax.telemetry.metrics import FILE, MetricsWriter, drop_metrics_after, read_metrics


def tensorboard_scalars(directory) -> list[tuple[int, str, float]]:
    """``(step, name, value)`` in the event files, read by the format's definition: length, its CRC, data, its CRC."""
    found = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = data[12 : 12 + length]
            masked = int.from_bytes(data[12 + length : 16 + length], "little")
            crc = crc32c(event)
            assert masked == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            parsed = Event.FromString(event)
            found += [(parsed.step, value.tag, value.simple_value) for value in parsed.summary.value]
            data = data[16 + length :]
    return found


def test_scalars_of_any_kind_are_read_back(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, {"reward": 0.1, "tokens": 3})
        metrics.write(2, {"reward": jnp.float32(0.5), "tokens": np.int64(4)})
    assert read_metrics(tmp_path) == {1: {"reward": 0.1, "tokens": 3.0}, 2: {"reward": 0.5, "tokens": 4.0}}
    assert tensorboard_scalars(tmp_path) == [
        (1, "reward", pytest.approx(0.1)),
        (1, "tokens", 3.0),
        (2, "reward", 0.5),
        (2, "tokens", 4.0),
    ]


def test_tensorboard_can_be_off(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as metrics:
        metrics.write(1, {"reward": 0.1})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_name(value, tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False, may_be_nan={"kl"}) as metrics:
        metrics.write(1, {"loss": 1.0})
        with pytest.raises(UserError, match=r"metric loss is .* at step 2"):
            metrics.write(2, {"reward": 1.0, "loss": value})
    assert read_metrics(tmp_path) == {1: {"loss": 1.0}}


def test_a_declared_nan_stays_one_in_valid_json(tmp_path):
    with MetricsWriter(tmp_path, may_be_nan={"kl"}) as metrics:
        metrics.write(1, {"kl": math.nan, "loss": 2.0})
        with pytest.raises(UserError, match="metric kl is inf"):
            metrics.write(2, {"kl": math.inf})
    assert "NaN" not in (tmp_path / FILE).read_text()
    found = read_metrics(tmp_path)[1]
    assert math.isnan(found["kl"]) and found["loss"] == 2.0
    assert tensorboard_scalars(tmp_path) == [(1, "loss", 2.0)]


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"loss": step})
        metrics.write(3, {"reward": 0.5})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"step": 4, "lo')  # killed here; the checkpoint is of step 1
    with MetricsWriter(tmp_path, tensorboard=False) as metrics:
        metrics.write(2, {"loss": 20})
    assert read_metrics(tmp_path) == {1: {"loss": 1}, 2: {"loss": 20}, 3: {"loss": 3, "reward": 0.5}}


def test_corrupt_lines_are_refused_by_file_and_line(tmp_path):
    (tmp_path / FILE).write_text('{"step": 1, "loss": 1}\n{"loss": 1}\n')
    with pytest.raises(UserError, match=f"{FILE}:2"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "garbage",
    [
        "#",
        '{"loss": 1}',
        "3",
        '{"step": "2", "loss": 1}',
        '{"step": 2, "loss": "x"}',
        f'{{"step": 2, "loss": {10**400}}}',
    ],
)
def test_rows_after_a_checkpoint_are_dropped_and_corrupt_lines_refused(tmp_path, garbage):
    drop_metrics_after(tmp_path, 2)
    assert not list(tmp_path.iterdir())
    lines = ['{"step": 1, "loss": null}', '{"step": 2, "loss": 1}', '{"step": 3, "loss": 1}']
    (tmp_path / FILE).write_text("\n".join(lines))  # the last line has lost its newline
    drop_metrics_after(tmp_path, 2)
    assert (tmp_path / FILE).read_text().splitlines() == lines[:2]
    (tmp_path / FILE).write_text(f"{lines[0]}\n{garbage}\n{lines[1]}\n")
    with pytest.raises(UserError, match=f"{tmp_path / FILE}:2: not a line of metrics: .*delete that line"):
        drop_metrics_after(tmp_path, 2)


def test_rows_are_taken_back_from_the_shards_of_an_object_store(tmp_path):
    shards = tmp_path / FILE
    shards.mkdir()
    written = [['{"step": 1, "x": 1}'], ['{"step": 2, "x": 2}', '{"step": 3, "x": 3}'], ['{"step": 4}']]
    for number, rows in enumerate(written):
        (shards / f"{number:08d}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    drop_metrics_after(tmp_path, 2)
    assert read_metrics(tmp_path) == {1: {"x": 1.0}, 2: {"x": 2.0}}
    assert sorted(path.name for path in shards.iterdir()) == ["00000000.jsonl", "00000001.jsonl"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_wandb_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(UserError, match="wandb.*pip install wandb"):
        MetricsWriter(tmp_path, wandb=True)
    assert not (tmp_path / FILE).exists()
