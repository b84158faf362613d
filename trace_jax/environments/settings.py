"""Settings of the target."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Split
from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Settings):
    """The environment that the agent works in."""

    section: ClassVar = "target"
    environment: str = setting("helpdesk", "name in the registry, or module:Class")
    train_tasks: int = setting(60, "tasks of the training split that are used", ge=1)
    held_out_tasks: int = setting(80, "tasks of the held-out split that are used", ge=1)

    def tasks(self, split: Split) -> int:
        """How many tasks of ``split`` are used."""
        return self.train_tasks if split == "train" else self.held_out_tasks

    @property
    def design(self) -> Design:
        """How the target is built, which generated environments may name as theirs."""
        return Design(entry_point=self.environment, parameters={})
