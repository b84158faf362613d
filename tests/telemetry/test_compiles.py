"""Compilations are counted with their shapes, and a second process reads them from the cache."""

import json
import logging
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp

from trace_jax.telemetry.compiles import CompileLog


def test_every_shape_is_one_compile_with_name_shapes_and_seconds(tmp_path):
    def squared_sum(x, y):
        return (x @ y).sum()

    square, wide = jnp.ones((3, 3)), jnp.ones((3, 5))
    step = jax.jit(squared_sum)
    with CompileLog(tmp_path / "compiles.jsonl") as log:
        for _ in range(3):
            step(square, square)
        assert log.count("jit(squared_sum)") == 1
        step(square, wide)
    assert [c.shapes for c in log.compiles if c.name == "jit(squared_sum)"] == [
        "float32[3,3], float32[3,3]",
        "float32[3,3], float32[3,5]",
    ]
    assert all(compiled.seconds > 0 for compiled in log.compiles) and log.seconds() > 0
    lines = [json.loads(line) for line in (tmp_path / "compiles.jsonl").read_text().splitlines()]
    assert [line["shapes"] for line in lines] == [compiled.shapes for compiled in log.compiles]
    step(wide.T, wide)
    assert log.count("jit(squared_sum)") == 2  # nothing is counted after the block


def test_logs_are_not_louder_inside(caplog):
    logger = logging.getLogger("jax._src.interpreters.pxla")
    before = logger.level
    with CompileLog() as log:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))
    assert log.compiles and not caplog.records
    assert logger.level == before and not logger.filters


def test_a_second_process_reads_from_the_users_cache(tmp_path):
    program = """
        import jax, jax.numpy as jnp
        from trace_jax.telemetry.compiles import CompileLog, enable_compilation_cache
        print(enable_compilation_cache())
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        def f(x):
            return jnp.sin(x) @ x
        with CompileLog() as log:
            jax.jit(f)(jnp.ones((4, 4)))
        print([compiled.cached for compiled in log.compiles if compiled.name == "jit(f)"])
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(program)]
    outputs = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
        for _ in range(2)
    ]
    assert outputs == [[str(tmp_path / "trace_jax" / "jax"), f"[{cached}]"] for cached in (False, True)]
