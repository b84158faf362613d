"""Merges an adapter into its base and writes a Hugging Face model that needs no adapter.

    python -m launch.merge --base=DIR --adapter=DIR --out=DIR

``--adapter`` is a PEFT directory, such as the ``peft`` directory of a trained adapter. The manifest of a trained
adapter holds the digests of these files, which are then checked. The program needs memory for one tensor.
"""

from absl import app, flags

from trace_jax.contract.adapter import check_adapter, manifest_of
from trace_jax.models.formats.merging import merge_adapter
from trace_jax.program import fail, guarded, parse_flags
from trace_jax.telemetry.progress import Progress

FLAGS = (
    flags.DEFINE_string("base", None, "Hugging Face directory of the base model"),
    flags.DEFINE_string("adapter", None, "PEFT directory of the adapter"),
    flags.DEFINE_string("out", None, "directory for the merged model"),
)


def main() -> None:
    """Merge, with a progress bar."""
    base, adapter, out = (str(flag.value) for flag in FLAGS)
    if (found := manifest_of(adapter)) is not None:
        check_adapter(*found)
    with Progress() as progress, progress.stage("merge, percent", total=100) as stage:
        merge_adapter(base, adapter, out, lambda done, total: stage.advance(100 * done // total - stage.done))
    print(f"merged model: {out}")


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest = parse_flags(arguments)
        for flag in FLAGS:
            if not flag.value:
                raise flags.Error(f"--{flag.name} is missing: name a directory")
    except flags.Error as error:
        fail(str(error), 2)
    return rest


if __name__ == "__main__":
    app.run(lambda _: guarded(main), flags_parser=_parse)
