"""AgentDojo's own solutions and evaluator, for ``conformance.py``."""

import contextlib
import warnings
from typing import Any

from agentdojo.agent_pipeline.agent_pipeline import AgentPipeline, load_system_message
from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
from agentdojo.agent_pipeline.basic_elements import InitQuery, SystemMessage
from agentdojo.agent_pipeline.tool_execution import ToolsExecutionLoop, ToolsExecutor
from agentdojo.functions_runtime import FunctionCall
from agentdojo.types import text_content_block_from_string

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.targets.agentdojo import RELATED, AgentDojo
from trace_jax.targets.agentdojo_episode import initial_environment, load_suite

warnings.simplefilter("ignore")


def make() -> AgentDojo:
    return AgentDojo()


def _task(id: str):
    suite, _, name = id.partition("/")
    return load_suite(suite), load_suite(suite).user_tasks[name]


def solution(id: str) -> list[Message]:
    """All calls in one message: the longest solution has more than the 15 messages that an agent may send."""
    suite, task = _task(id)
    environment = task.init_environment(initial_environment(suite.name).model_copy(deep=True))
    calls = tuple(
        ToolCall(id=f"call_{number}", name=call.function, arguments=dict(call.args))
        for number, call in enumerate(task.ground_truth(environment))
    )
    answer = Message(role="assistant", content=task.GROUND_TRUTH_OUTPUT)
    return [Message(role="assistant", content="", tool_calls=calls), answer] if calls else [answer]


class _Scripted(BasePipelineElement):
    def __init__(self, script: list[Message]) -> None:
        self._script = iter(script)

    def query(self, query, runtime, env, messages=(), extra_args=None):
        message = next(self._script)
        calls = [FunctionCall(function=call.name, args=call.arguments, id=call.id) for call in message.tool_calls]
        content = None if message.content is None else [text_content_block_from_string(message.content)]
        return query, runtime, env, [*messages, {"role": "assistant", "content": content, "tool_calls": calls}], {}


def verdict(id: str, script: list[Message]) -> dict[str, Any] | None:
    """What ``run_task_with_pipeline`` says; None if the script ends before the agent answers."""
    suite, task = _task(id)
    model = _Scripted(script)
    loop = ToolsExecutionLoop([ToolsExecutor(), model])
    pipeline = AgentPipeline([SystemMessage(load_system_message(None)), InitQuery(), model, loop])
    with contextlib.suppress(StopIteration):
        environment = initial_environment(suite.name).model_copy(deep=True)  # loading it takes 0.1 s
        utility, _ = suite.run_task_with_pipeline(pipeline, task, None, {}, environment=environment)
        return {"valid": bool(utility)}
    return None


def agrees(ours, theirs: dict[str, Any]) -> bool:
    return next(check.passed for check in ours.checks if check.name == "utility") == theirs["valid"]


def related() -> dict[str, Any]:
    """Tasks that are made of others, as the benchmark's own code links them, and our table of them."""
    links = []
    for name in ("banking", "slack", "travel", "workspace"):
        for id, task in load_suite(name).user_tasks.items():
            cells = [cell.cell_contents for cell in type(task).ground_truth.__closure__ or ()]
            links += [[f"{name}/{id}", f"{name}/{part.ID}"] for part in cells if hasattr(part, "ID")]
    return {"links": links, "table": RELATED}


def unlike() -> dict[str, Any]:
    """Where our episodes begin otherwise than the benchmark's: the initial state, the system message."""
    names = ("banking", "slack", "travel", "workspace")
    states = [n for n in names if initial_environment(n) != load_suite(n).load_and_inject_default_environment({})]
    said = AgentDojo().environment("train").reset("slack/user_task_0").messages[0].content
    return {"states": states, "system": said != load_system_message(None)}


def endless() -> dict[str, Any]:
    """An agent that calls the same function until the episode is over."""
    environment = AgentDojo().environment("train")
    environment.reset("banking/user_task_0")
    call = ToolCall(id="call", name="get_iban", arguments={})
    said = (environment.step(Message(role="assistant", tool_calls=(call,))) for _ in range(40))
    messages = next((number for number, seen in enumerate(said, start=1) if seen.done), None)
    checks = {check.name: check.passed for check in environment.grade().checks}
    return {"messages": messages, "answered": checks["answered"]}
