"""Settings of stage 1."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings(Settings):
    """Which analyst labels the trajectories, and how often."""

    section: ClassVar = "analysis"
    analyst: str = setting(
        "rules",
        "who labels trajectories: rules (detectors), llm (the language model of the section llm), an entry point, or "
        "module:NAME",
    )
    runs: int = setting(10, "independent labelings", ge=1)
    min_support: int = setting(5, "failed trajectories that must lack a capability", ge=0)
    passes: int = setting(4, "samples of episodes in which a language model looks for capabilities", ge=1)
    episode_tokens: int = setting(2000, "tokens to which an episode is compacted for a language model", ge=200)
    episodes_per_request: int = setting(8, "episodes that one request labels at most", ge=1)
    tokenizer: str = setting("", "directory of the tokenizer.json that counts tokens; empty: by bytes_per_token")
    bytes_per_token: float = setting(2.5, "bytes of UTF-8 that are counted as one token", gt=0)


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Settings):
    """The result file that ``launch.analyze`` reads."""

    section: ClassVar = "source"
    format: str = setting(
        "trajectories",
        "format of the file: trajectories, openai_chat, inspect, tau_bench, tau2_bench, toolsandbox, an entry point, "
        "or module:NAME",
    )
    path: str = setting("", "the file, or the directory of a τ²-bench or ToolSandbox run")
    domain: str = setting("", "environment of a τ-bench file or a chat log, which do not name it")
    model: str = setting("unknown", "model that produced a τ-bench file or a chat log, which may not name it")
    score: str = setting("", "scorer of an Inspect log whose score is the reward; empty: the only one")
