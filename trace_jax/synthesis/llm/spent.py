"""What the answers for a capability cost, by the calls on file."""

from collections.abc import Sequence

from trace_jax.contract.environment import Authorship
from trace_jax.contract.llm import ModelCall


def authorship(calls: Sequence[ModelCall], source_sha256: str) -> Authorship:
    """The sums over ``calls``, of which there is at least one."""
    prompts = dict.fromkeys(f"{call.prompt}@{call.prompt_version}" for call in calls)
    prompts |= dict.fromkeys(f"repair@{call.repair}" for call in calls if call.repair is not None)
    usages = [call.usage for call in calls if call.usage is not None]
    dollars = [call.dollars for call in calls if call.dollars is not None]
    return Authorship(
        model=", ".join(dict.fromkeys(call.model for call in calls)),
        prompts=tuple(prompts),
        source_sha256=source_sha256,
        requests=len(calls),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        dollars=sum(dollars) if dollars else None,
    )
