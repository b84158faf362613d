"""Checksums for manifests of adapters that no test loads."""

from trace_jax.contract.adapter import PEFT_FILES
from trace_jax.contract.digest import Checksum

FILES = {name: Checksum(size=0, sha256=64 * "0") for name in PEFT_FILES}
