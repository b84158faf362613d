"""The models of a score: a base, and the adapters that an engine is to hold."""

from functools import cached_property
from typing import TYPE_CHECKING

from evaluation.checkpoints import Checkpoint
from trace_jax.run_settings import RunSettings

if TYPE_CHECKING:  # JAX is slow to import, and --help needs none
    from trace_jax.models.lora import LoRA
    from trace_jax.session import Base


class BaseOnDemand:
    """The base that the settings name, loaded when it is first needed."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    @cached_property
    def base(self) -> "Base":
        """The model. Raises UserError as ``load_base``."""
        from trace_jax.session import load_base

        return load_base(self._settings)

    @cached_property
    def revision(self) -> str:
        """The content hash of the model, which is not loaded for it, or the endpoint. Raises as ``load_base``."""
        from trace_jax.models.formats.huggingface import revision
        from trace_jax.session import open_endpoint

        if self._settings.engine.kind == "chat":
            return open_endpoint(self._settings).revision
        path = self._settings.base.path
        return revision(path) if path else self.base.revision  # the latter raises


class Models:
    """The base, and the adapters of the current score on their way into an engine."""

    def __init__(self, settings: RunSettings, base: BaseOnDemand | None = None) -> None:
        self.settings, self._base = settings, base or BaseOnDemand(settings)
        self.loras: dict[str, LoRA] = {}  # by the name that the engine knows
        self._rollouts: dict[str, int] = {}

    @property
    def is_endpoint(self) -> bool:
        """Whether an endpoint plays, which has no base and takes no adapters."""
        return self.settings.engine.kind == "chat"

    @property
    def base(self) -> "Base":
        """See ``BaseOnDemand``. Raises UserError for an endpoint."""
        return self._base.base

    @property
    def revision(self) -> str:
        """See ``BaseOnDemand``."""
        return self._base.revision

    def load(self, checkpoint: Checkpoint) -> int:
        """Load the adapter of ``checkpoint``; the rollouts of its training, 0 if nothing tells them.

        Raises UserError for a checkpoint of another base, and for one that is damaged or was changed.
        """
        from evaluation.loading import load_checkpoint

        if checkpoint.name not in self.loras:
            self.loras[checkpoint.name], self._rollouts[checkpoint.name] = load_checkpoint(checkpoint, self.base)
        return self._rollouts[checkpoint.name]

    def forget(self) -> None:
        """Release the adapters."""
        self.loras, self._rollouts = {}, {}
