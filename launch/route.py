"""Makes the route table over trained adapters, and the gate that chooses among them.

    python -m launch.route --config=configs/X.py --analysis=ANALYSIS --environments=ENVIRONMENTS --adapters=ADAPTERS
        --workdir=DIR

ANALYSIS is the directory of the analysis, ENVIRONMENTS that of launch.synthesize's manifests, and ADAPTERS holds
NAME/adapter.json of each adapter that launch.train has trained on one of them. The program writes
DIR/routing/route_table.json, which launch.serve and evaluation.evaluate read, with its gate. A capability without an
adapter is left out. --dry_run checks the inputs.
"""

import dataclasses
from collections.abc import Sequence

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from launch.inputs import local, read_candidates, read_evidence, read_manifests, read_selected
from trace_jax.analysis.stage import SOURCE, Source
from trace_jax.contract.adapter import MANIFEST, AdapterManifest, check_adapter
from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import read_document, write_document
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.hosts.opened import open_target
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings

ROUTING, CAPABILITIES = "routing", "capabilities"


@dataclasses.dataclass(frozen=True)
class Routed:
    """A selected capability with its environment and its adapter."""

    selected: SelectedCapability
    environment: EnvironmentManifest
    adapter: AdapterManifest


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Make the table if it is not made yet, and print what it routes to."""
    settings, root = read_settings(config), local(workdir)
    routed, candidates = _routed(), read_candidates(ANALYSIS.value).all
    episodes = read_evidence(ANALYSIS.value, ROLLOUTS.value, settings.source)
    from trace_jax.pipeline.router_prompts import router_prompts  # JAX, which a dry run does not need
    from trace_jax.pipeline.routing import make_router
    from trace_jax.session import load_base

    base, target = load_base(settings), open_target(settings.target)
    open_workdir(workdir, _identity(settings, base.revision, routed))
    environments, adapters = [each.environment for each in routed], [each.adapter for each in routed]
    router = make_router(
        adapters,
        candidates,
        lambda: router_prompts(
            environments,
            adapters,
            candidates,
            target=target,
            own=settings.target.design,
            prompts=settings.routing.prompts,
            episodes=episodes,
            sandbox=settings.sandbox,
        ),
        settings=settings,
        base=base,
        directory=root / ROUTING,
        rollouts=_spent(),
    )
    for each in routed:
        path = workdir / CAPABILITIES / f"{each.selected.capability.name}.json"
        write_document(path, each.selected.replace(status=Status.ROUTED))
    print(_table(routed))
    print(f"{root / ROUTING}: {router.table.router} over {len(routed)} adapters")


def check(config: ConfigDict, workdir: epath.Path | None) -> None:
    """Everything that can be checked without a model: settings, analysis, environments and adapters."""
    settings = read_settings(config)
    read_candidates(ANALYSIS.value)
    read_evidence(ANALYSIS.value, ROLLOUTS.value, settings.source)
    print(f"\n{_table(_routed())}")


def _routed() -> list[Routed]:
    """The selected capabilities that have an adapter, best first. Raises UserError if there is none."""
    manifests = read_manifests(ENVIRONMENTS.value)
    found = []
    for selected in read_selected(ANALYSIS.value):
        name = selected.capability.name
        path = epath.Path(ADAPTERS.value) / name / MANIFEST
        if name in manifests and path.exists():
            adapter = read_document(path, AdapterManifest)
            check_adapter(path, adapter)
            if adapter.environments != (name,):
                raise UserError(f"{path}: trained on {', '.join(adapter.environments)}, not on {name}: train it again")
            found.append(Routed(selected, manifests[name], adapter))
    if not found:
        raise UserError(
            f"{ADAPTERS.value}: no adapter NAME/{MANIFEST} of a capability with an environment in "
            f"{', '.join(ENVIRONMENTS.value)}: run launch.train on these environments"
        )
    return found


def _spent() -> int:
    """Rollouts before the training: of the analysis, and of all environments, those of FAILED capabilities included."""
    analysed = read_document(epath.Path(ANALYSIS.value) / SOURCE, Source).trajectories
    directories = [path for path in map(epath.Path, ENVIRONMENTS.value) if path.is_dir()]
    lost = [read_document(path, SelectedCapability) for each in directories for path in each.glob("*.failed.json")]
    made = read_manifests(ENVIRONMENTS.value).values()
    return analysed + sum(each.rollouts for each in made) + sum(each.rollouts for each in lost)


def _identity(settings: RunSettings, revision: str, routed: Sequence[Routed]) -> dict[str, object]:
    """What the work directory belongs to."""
    adapters = {each.adapter.name: each.adapter.files["adapter_model.safetensors"].sha256 for each in routed}
    routing = dataclasses.asdict(settings.routing)
    return {"seed": settings.seed, "routing": routing, "base_revision": revision, "adapters": adapters}


def _table(routed: Sequence[Routed]) -> str:
    """What is routed to, as Markdown."""
    rows = ["| capability | adapter | steps | rollouts | mean reward |", "|---|---|---|---|---|"]
    for each in routed:
        reward = each.adapter.metrics.get("reward/mean")
        shown = "–" if reward is None else f"{reward:.2f}"
        cells = (each.selected.capability.name, each.adapter.name, each.adapter.steps, each.adapter.rollouts, shown)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    ANALYSIS = flags.DEFINE_string("analysis", None, "directory of the analysis", required=True)
    ENVIRONMENTS = flags.DEFINE_list("environments", None, "manifests, or directories of them", required=True)
    ADAPTERS = flags.DEFINE_string(
        "adapters", None, "directory of the adapters, adapters/ of launch.train", required=True
    )
    ROLLOUTS = flags.DEFINE_string("rollouts", None, "JSON Lines of the trajectories that were analysed")
    run(main, dry_run=check)
