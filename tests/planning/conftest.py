"""The variables under which libtpu compiles with no TPU, and programs whose costs are known by hand."""

from trace_jax.planning.environment import prepare_environment

prepare_environment()
