"""Score every adapter under a directory, including snapshots of unfinished training.

python -m evaluation.sweep --config=configs/base.py --config.base.path=MODEL --directory=RUN --workdir=OUT
"""

from typing import cast

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from evaluation.evaluate import REPORT, score
from evaluation.report_data import find_documents
from evaluation.terminal import print_evaluation
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.trajectory import Split
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings


def sweep(settings: RunSettings, directory: epath.Path, split: Split, workdir: epath.Path) -> None:
    """Evaluate all adapter manifests under ``directory``, fewest rollouts first. Raises UserError if there are none."""
    manifests = sorted(find_documents(directory, AdapterManifest), key=lambda found: (found[1].rollouts, found[1].name))
    if not manifests:
        raise UserError(f"{directory}: holds no adapter manifest: name the directory of a training run")
    print_evaluation(score(settings, manifests, None, split, workdir).report)
    print(f"report: {workdir / REPORT}")


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Score the adapters below --directory."""
    if not DIRECTORY.value:
        raise UserError("--directory is missing: name the directory of a training run")
    sweep(read_settings(config), epath.Path(DIRECTORY.value), cast(Split, SPLIT.value), workdir)


if __name__ == "__main__":
    DIRECTORY = flags.DEFINE_string("directory", None, "directory that is searched for adapter manifests")
    SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "tasks to score on")
    run(main)
