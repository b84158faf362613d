"""The public names of packages: each resolves, and none is loaded before it is used."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = [
    "trace_jax.engines",
    "trace_jax.engines.embedded",
    "trace_jax.engines.sglang",
    "trace_jax.environments",
    "trace_jax.environments.adapters",
    "trace_jax.environments.helpdesk",
    "trace_jax.environments.hosts",
    "trace_jax.environments.helpdesk.practice",
    "trace_jax.rollout",
    "trace_jax.routing",
    "trace_jax.synthesis",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_resolves(name):
    package = importlib.import_module(name)
    assert package.__all__
    for attribute in package.__all__:
        assert getattr(package, attribute) is not None
    with pytest.raises(AttributeError):
        package.no_such_name  # noqa: B018


def test_importing_the_packages_loads_neither_jax_nor_their_modules():
    code = f"import sys, {', '.join(PACKAGES)}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "numpy", "aiohttp"} & set(loaded)
    ours = {name for name in loaded if name.startswith("trace_jax.")}
    assert ours == {*PACKAGES}
