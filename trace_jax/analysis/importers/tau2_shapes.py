"""What a τ²-bench result file must hold to be read: its ``data_model/simulation.py`` and ``message.py``, as far as
trajectories need them. Everything else may be there or not."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from trace_jax.analysis.importers.episodes import Shape, TaskId


class ToolDefinition(Shape):
    """A tool of the agent; ``params`` is a JSON Schema."""

    name: str
    doc: str | None = None
    params: dict[str, Any] | None = None


class EnvironmentInfo(Shape):
    """The domain, its policy, and the agent's tools by name."""

    domain_name: str
    policy: str | None = None
    tool_defs: dict[str, Any] | None = None  # of ToolDefinition; each is judged alone


class AgentInfo(Shape):
    """What played the agent."""

    implementation: str | None = None
    llm: str | None = None


class Info(Shape):
    """What all simulations of the file share."""

    environment_info: EnvironmentInfo
    agent_info: AgentInfo


class IndexEntry(Shape):
    """What the directory form notes of each simulation beside its file."""

    id: str
    task_id: Any = None
    trial: Any = None
    reward: Any = None
    termination_reason: Any = None


class ResultFile(Shape):
    """The file as a whole, without its simulations."""

    info: Info
    tasks: list[Any]
    simulation_index: list[Any] | None = None  # of IndexEntry; each is judged alone


class Call(Shape):
    """A tool call, of the agent or of the user."""

    id: str = ""
    name: str
    arguments: dict[str, Any]


class ToolResult(Shape):
    """The answer to a tool call of the same ``id``."""

    id: str
    role: Literal["tool"]
    content: str | None = None
    timestamp: str | None = None


class ToolResults(Shape):
    """Several answers to one message."""

    role: Literal["tool"]
    tool_messages: list[ToolResult]


class Speech(Shape):
    """A message of the agent or of the user, or a piece of what one of them says within a tick."""

    role: Literal["system", "user", "assistant"]
    content: str | None = None
    tool_calls: list[Call] | None = None
    timestamp: str | None = None


def _kind(raw: Any) -> str:
    if isinstance(raw, dict) and "tool_messages" in raw:
        return "results"
    return "result" if isinstance(raw, dict) and raw.get("role") == "tool" else "speech"


AnyMessage = Annotated[
    Annotated[Speech, Tag("speech")] | Annotated[ToolResult, Tag("result")] | Annotated[ToolResults, Tag("results")],
    Discriminator(_kind),
]


class Tick(Shape):
    """All that happened in one time step of a voice simulation."""

    timestamp: str
    agent_chunk: Speech | None = None
    user_chunk: Speech | None = None
    agent_tool_calls: list[Call] = []
    user_tool_calls: list[Call] = []
    agent_tool_results: list[ToolResult] = []
    user_tool_results: list[ToolResult] = []


class DatabaseCheck(Shape):
    """Whether the database ended as it should."""

    db_match: bool


class EnvironmentAssertion(Shape):
    """A function of the environment that must hold at the end."""

    func_name: str


class EnvironmentCheck(Shape):
    """Whether an assertion about the environment holds."""

    env_assertion: EnvironmentAssertion
    met: bool


class Action(Shape):
    """A call that the agent should make."""

    name: str


class ActionCheck(Shape):
    """Whether the agent made the call."""

    action: Action
    action_match: bool


class StatementCheck(Shape):
    """Whether a statement about the conversation holds."""

    nl_assertion: str
    met: bool


class CommunicationCheck(Shape):
    """Whether the agent told the user what it had to."""

    info: str
    met: bool


class RewardInfo(Shape):
    """The grade. ``reward`` is judged apart (see ``reward_of``)."""

    reward: Any = None
    db_check: DatabaseCheck | None = None
    env_assertions: list[EnvironmentCheck] | None = None
    action_checks: list[ActionCheck] | None = None
    nl_assertions: list[StatementCheck] | None = None
    communicate_checks: list[CommunicationCheck] | None = None
    reward_breakdown: dict[str, float] | None = None


class Simulation(Shape):
    """One episode. ``policy`` is what its agent saw in place of the domain's; voice simulations hold ``ticks``."""

    id: str
    task_id: TaskId
    termination_reason: str | None = None
    duration: float | None = None
    reward_info: RewardInfo | None = None
    messages: list[AnyMessage] | None = None
    ticks: list[Tick] | None = None
    trial: int | None = None
    seed: int | None = None
    policy: str | None = None
    skipped: bool | None = None
