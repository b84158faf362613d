"""A domain of τ²-bench as its package has it: tasks, splits, tools, and who plays in an episode."""

from collections.abc import Mapping
from typing import Any

from tau2.agent.llm_agent import LLMAgent, LLMSoloAgent
from tau2.config import DEFAULT_LLM_TEMPERATURE_USER
from tau2.data_model.message import UserMessage
from tau2.data_model.tasks import Task
from tau2.domains.telecom import environment as telecom
from tau2.domains.telecom.tools import TelecomTools
from tau2.environment.environment import Environment
from tau2.environment.tool import Tool as PackageTool
from tau2.registry import registry
from tau2.user.user_simulator import DummyUser, UserSimulator

from trace_jax.contract.trajectory import Message, Split, Tool, ToolCall
from trace_jax.targets.common import user_key, without_key
from trace_jax.targets.tau2_gold import GoldUser


class Domain:
    """The tasks of a domain by id, its splits, its tools, and a JSON Schema for the results of each tool.

    ``idle`` is the message of an agent that does nothing.
    """

    def __init__(self, name: str, solo: bool) -> None:
        self.name, self.solo = name, solo
        tasks = [task for task in registry.get_tasks_loader(name)("base") if not solo or _can_be_solo(task)]
        self.tasks: dict[str, Task] = {task.id: task for task in tasks}
        self.splits = _splits(name, tuple(self.tasks))
        offered = self.agent(self.environment(), tasks[0]).tools
        self.tools = tuple(_tool(tool) for tool in offered)
        self.results = {tool.name: _result(tool) for tool in offered}
        stop = ToolCall(id="stop", name=LLMSoloAgent.STOP_FUNCTION_NAME, arguments={})
        self.idle = Message(role="assistant", tool_calls=(stop,)) if solo else Message(role="assistant", content="Bye.")

    def environment(self) -> Environment:
        """A new environment of the package, in its first state."""
        return registry.get_env_constructor(self.name)(solo_mode=self.solo)

    def agent(self, environment: Environment, task: Task) -> Any:
        """The package's agent for a task: it has the system prompt and the tools, and says what ``said`` is set to."""
        if not self.solo:
            return _Agent(tools=environment.get_tools(), domain_policy=environment.get_policy())
        tools = environment.get_tools() + (environment.get_user_tools() if environment.user_tools else [])
        return _SoloAgent(tools=tools, domain_policy=environment.get_policy(), task=task)

    def user(self, environment: Environment, task: Task, user: str | Mapping[str, Any] | None) -> UserSimulator:
        """The user of a task: nobody, the gold one, or a language model with the package's own prompt."""
        if user is None:
            return DummyUser()
        tools = environment.get_user_tools() if environment.user_tools else None
        if isinstance(user, str):
            return GoldUser(tools=tools, task=task)
        return _ModelUser(tools, str(task.user_scenario), user)


class _Said:
    """The part of an agent that speaks: it was decided outside what it says."""

    said: Any = None

    def generate_next_message(self, message: Any, state: Any) -> tuple[Any, Any]:
        return self.said, state


class _Agent(_Said, LLMAgent):
    pass


class _SoloAgent(_Said, LLMSoloAgent):
    pass


class _ModelUser(UserSimulator):
    """A user played by a language model. What goes wrong with it is said without the key."""

    def __init__(self, tools: list[PackageTool] | None, scenario: str, user: Mapping[str, Any]) -> None:
        super().__init__(tools, scenario, llm=f"openai/{user['model']}", llm_args=_sampling(user))
        self._user = user

    def generate_next_message(self, message: Any, state: Any) -> tuple[UserMessage, Any]:
        try:
            said, state = super().generate_next_message(message, state)
            said.validate()
        except Exception as error:  # of the model's server, of the client, or of what the model wrote
            text = without_key(" ".join(f"{type(error).__name__}: {error}".split()), self._user)
            raise RuntimeError(f"the user's model {self._user['model']!r} failed: {text}") from None
        return said, state


class _SteadyTelecomTools(TelecomTools):
    """Telecom's tools, but the id of a new bill does not depend on chance.

    ``refuel_data`` makes a bill for a customer who has no draft of one. The evaluator plays an episode's calls again
    and compares the results, so that it refuses an episode in which a random id was read.
    """

    def _apply_one_time_charge(self, customer_id: str, amount: float, description: str) -> None:
        known = len(self.db.bills)
        super()._apply_one_time_charge(customer_id, amount, description)
        bill_ids = self.get_customer_by_id(customer_id).bill_ids
        for number, bill in enumerate(self.db.bills[known:], known):
            position = bill_ids.index(bill.bill_id)
            bill.bill_id = bill_ids[position] = f"B{number:08d}"


telecom.TelecomTools = _SteadyTelecomTools


def _can_be_solo(task: Task) -> bool:
    return bool(task.ticket) and LLMSoloAgent.check_valid_task(task)


def _splits(name: str, tasks: tuple[str, ...]) -> dict[Split, tuple[str, ...]]:
    load = registry.get_task_splits_loader(name)
    if load is None:  # mock
        return {"train": tasks[::2], "held_out": tasks[1::2]}
    splits = load()
    return {"train": tuple(splits["train"]), "held_out": tuple(splits["test"])}


def _tool(tool: PackageTool) -> Tool:
    function = tool.openai_schema["function"]
    return Tool(name=function["name"], description=function["description"], parameters=function["parameters"])


def _result(tool: PackageTool) -> dict[str, Any]:
    """A schema for the result, or for the text of an error. A tool that returns a text may return any JSON in it."""
    schema = tool.returns.model_json_schema()
    result = schema["properties"]["returns"]
    if result.get("type") == "string":
        return {}
    return {"anyOf": [result, {"type": "string"}], "$defs": schema.get("$defs", {})}


def _sampling(user: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the package's client. It asks up to four times, and waits in between."""
    found = {
        "api_base": user["url"],
        "api_key": user_key(user),
        "temperature": user.get("temperature", DEFAULT_LLM_TEMPERATURE_USER),
        "max_tokens": user.get("max_tokens"),
        "timeout": user.get("request_seconds"),
    }
    return {name: value for name, value in found.items() if value is not None}
