"""Renders the jobs of a cluster: a GKE JobSet and XPK command, a SkyPilot task, plain SSH scripts. Calls no cloud.

    python -m launch.clusters --config=configs/clusters/qwen3_30b_v6e64.py --out=DIR [--dry_run]

All values are checked before a file is written. The program prints the names of the files and the next commands.
``--dry_run`` prints the files instead of writing them.
"""

from pathlib import Path

from absl import app, flags

from clusters.check import read_cluster
from clusters.cluster import Cluster
from clusters.files import Rendered
from clusters.gke import render_gke
from clusters.skypilot import render_skypilot
from clusters.ssh import render_ssh
from trace_jax.errors import UserError
from trace_jax.program import CONFIG, DRY_RUN, WORKDIR, guarded, parse

_RENDERERS = {"gke": render_gke, "skypilot": render_skypilot, "ssh": render_ssh}


def render(cluster: Cluster) -> list[Rendered]:
    """The files of every target."""
    return [_RENDERERS[target](cluster) for target in cluster.targets]


def main(out: str | None) -> None:
    """Render the configuration of --config into the directory ``out``; print the files if it is None."""
    if WORKDIR.present:
        raise UserError(f"--workdir={WORKDIR.value}: files go to --out; the run's directory is --config.workdir")
    cluster = read_cluster(CONFIG.value.to_dict())
    trainer, rollout = cluster.trainer, cluster.rollout
    print(
        f"{cluster.name}: {trainer.machines} trainer hosts, {trainer.devices} devices of {trainer.accelerator}; "
        f"{rollout.servers} servers on {rollout.machines} machines of {rollout.gpus_per_machine} {rollout.accelerator}"
    )
    for rendered in render(cluster):
        for name, content in rendered.files.items():
            path = f"{rendered.directory}/{name}"
            if out is None:
                print(f"# --- {path}\n{content}")
            else:
                file = Path(out, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8")
                print(f"wrote {file}")
        print(f"next, in {out or 'the output directory'}:", *rendered.commands, sep="\n  ")


if __name__ == "__main__":
    OUT = flags.DEFINE_string("out", None, "directory for the rendered files")
    app.run(
        lambda _: guarded(lambda: main(None if DRY_RUN.value else OUT.value)),
        flags_parser=lambda arguments: parse(arguments, OUT),
    )
