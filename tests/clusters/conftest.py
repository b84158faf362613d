"""Clusters for the tests of launch.clusters, and stand-ins for the programs that the rendered scripts call."""

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from clusters.check import read_cluster
from clusters.cluster import Cluster

STAND_IN = """#!/usr/bin/env bash
{ flock 9; printf '%s\\x1f' "${0##*/}" "$@"; printf '\\x1e'; } 9>> "$LOG" >&9
exec 9>&-
"""


@pytest.fixture
def cluster() -> Callable[..., Cluster]:
    """``cluster("qwen3_8b_h100", **{"trainer.spot": False})``: a shipped cluster with changes."""

    def make(shipped: str, /, **changes: object) -> Cluster:
        module = importlib.import_module(f"configs.clusters.{shipped}")
        config: ConfigDict = module.get_config().copy_and_resolve_references()
        with config.unlocked():
            config.update_from_flattened_dict(changes)
        return read_cluster(config.to_dict())

    return make


class Machine:
    """A directory of stand-ins that log how they are called: words end with \\x1f, calls with \\x1e."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.home = directory / "home"
        for path in (self.bin, self.home):
            path.mkdir()
        self.log.touch()

    def program(self, name: str, body: str = "") -> None:
        """A program that logs its call and then runs ``body``."""
        path = self.bin / name
        path.write_text(STAND_IN + body)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run ``script`` with nothing but the stand-ins and the system's own programs."""
        return subprocess.run(
            ["bash", "-c", script, "script", *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home), "LOG": str(self.log), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self, *prefix: str) -> list[list[str]]:
        """Every call so far whose first words are ``prefix``."""
        calls = [call.split("\x1f")[:-1] for call in self.log.read_text().split("\x1e")[:-1]]
        return [call for call in calls if tuple(call[: len(prefix)]) == prefix]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose sudo, docker, gcloud, curl, ssh and sleep are stand-ins."""
    made = Machine(tmp_path)
    made.program("sudo", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    for name in ("docker", "gcloud", "curl", "ssh", "sleep"):
        made.program(name)
    return made
