"""Settings of the target."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Split
from trace_jax.errors import UserError
from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Settings):
    """The environment that the agent works in."""

    section: ClassVar = "target"
    environment: str = setting("helpdesk", "name in the registry, or module:NAME of a class or function")
    parameters: str = setting("{}", 'JSON object of what the target is made with, such as {"train": 200}')
    train_tasks: int = setting(60, "tasks of the training split that are used", ge=1)
    held_out_tasks: int = setting(80, "tasks of the held-out split that are used", ge=1)
    workers: int = setting(0, "worker processes that run the environments; 0: in this process", ge=0)
    python: str | None = setting(None, "interpreter of the workers, if not this one: /path/to/venv/bin/python")
    step_seconds: float = setting(60.0, "seconds of one call of an environment in a worker", gt=0)
    start_seconds: float = setting(300.0, "seconds in which a worker has imported and made its target", gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arguments()

    def arguments(self) -> dict[str, Any]:
        """``parameters`` as keyword arguments. Raises UserError if they are no JSON object."""
        try:
            found = json.loads(self.parameters)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UserError(
                f'target.parameters is {self.parameters!r}: it should be a JSON object, such as {{"train": 200}}'
            )
        return found

    def tasks(self, split: Split) -> int:
        """How many tasks of ``split`` are used."""
        return self.train_tasks if split == "train" else self.held_out_tasks

    @property
    def design(self) -> Design:
        """How the target is built, which generated environments may name as theirs."""
        return Design(entry_point=self.environment, parameters=self.arguments())
