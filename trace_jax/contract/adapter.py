"""Stage 3 record: a trained LoRA adapter."""

from pydantic import Field

from trace_jax.contract.record import Record


class AdapterManifest(Record):
    """An adapter on disk. Paths are relative to the manifest's own directory, so that a work directory can be moved."""

    name: str  # unique and immutable: engines load adapters under it
    capabilities: tuple[str, ...]  # what it was trained for; several for a mixture, none for the target itself
    environments: tuple[str, ...]  # environment manifests it was trained on
    base: str  # revision (content hash) of the base model
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    peft: str  # directory in PEFT format
    checkpoint: str  # Orbax checkpoint directory
    steps: int
    rollouts: int
    seed: int
    metrics: dict[str, float] = Field(default_factory=dict)  # of the last step
