"""Settings of the job that ``launch.plan`` plans."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Settings):
    """The planned step. All its episodes have the same lengths: a prompt, which its group shares, and a completion."""

    section: ClassVar = "plan"
    model: str = setting("", "config.json of the model that is planned for; empty: that of base.path")
    adapters: int = setting(1, "adapters that learn together", ge=1)
    prompt_tokens: int = setting(1024, "tokens of a prompt, which the rollouts of its group share", ge=1)
    completion_tokens: int = setting(1024, "tokens of an episode behind its prompt", ge=1)
    trained_share: float = setting(0.4, "share of the completion tokens that are sampled, and so trained", gt=0, le=1)
    decode_slots: int = setting(0, "slots a device of the engine's decode step; 0: the step is not planned", ge=0)
