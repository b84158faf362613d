"""One episode of ToolSandbox in a process of its own, because its context, clock and ids are the process's.

It reads requests and writes answers, a JSON object a line. It needs the standard library and the checkout alone.
"""

import json
import os
import sys
import threading
import time
from importlib import import_module
from types import SimpleNamespace
from typing import Any

NETWORK = "tool_sandbox.tools.rapid_api_search_tools"


class Sandbox:
    """The checkout's modules, and an episode in them."""

    def __init__(self) -> None:
        self.context = import_module("tool_sandbox.common.execution_context")
        self.conversion = import_module("tool_sandbox.common.message_conversion")
        self.schemas = import_module("tool_sandbox.common.tool_conversion").convert_to_openai_tools
        self.role = import_module("tool_sandbox.roles.base_role").BaseRole
        self.roles = self.context.RoleType
        self.agent = type("Agent", (self.role,), {"role_type": self.roles.AGENT})()

    def scenarios(self, seed: str) -> dict[str, Any]:
        """All scenarios by name, with time and chance stopped."""
        named = import_module("tool_sandbox.scenarios").named_scenarios
        backend = import_module("tool_sandbox.common.tool_discovery").ToolBackend.DEFAULT
        stop = import_module("toolsandbox_clock").stop_clock_and_chance
        stop(seed)
        found: dict[str, Any] = named(preferred_tool_backend=backend)
        stop(seed)  # in modules that were imported meanwhile
        return found

    def describe(self) -> dict[str, Any]:
        """The categories of every scenario, whether it needs the network, and all tools of the agent."""
        scenarios = self.scenarios("")
        self.context.set_current_context(self.context.ExecutionContext())
        tools = self.agent.get_available_tools()
        network = {name for name, tool in tools.items() if tool.__module__ == NETWORK}
        found = {
            name: {
                "categories": [category.name for category in scenario.categories],
                "network": bool(network & set(scenario.starting_context.tool_allow_list or tools)),
            }
            for name, scenario in scenarios.items()
        }
        return {"scenarios": found, "tools": self.schemas(tools)}

    def reset(self, task: str, user: Any) -> dict[str, Any]:
        """Begins the scenario ``task``. ``user``: texts that are said in turn, or a model as a mapping."""
        environment = import_module("tool_sandbox.roles.execution_environment").ExecutionEnvironment()
        player = self.scripted(list(user)) if isinstance(user, list) else _model(**user)
        self.players = {self.roles.EXECUTION_ENVIRONMENT: environment, self.roles.USER: player}
        self.scenario = self.scenarios(task)[task]
        self.context.set_current_context(self.scenario.starting_context)
        for index, message in enumerate(self.role.get_messages()):
            if (message.sender, message.recipient) == (self.roles.SYSTEM, self.roles.EXECUTION_ENVIRONMENT):
                environment.respond(ending_index=index)
        self.last = self.context.get_current_context().max_sandbox_message_index + self.scenario.max_messages
        return self.heard(0) | {"tools": self.schemas(self.agent.get_available_tools())}

    def step(self, text: str, calls: list[dict[str, str]]) -> dict[str, Any]:
        """Passes the agent's calls on, or its text if there are none. Each call has an ``id`` that is an identifier."""
        shown, names = len(self.role.get_messages()), self.agent.get_available_tools()
        context, said = self.context.get_current_context(), []
        for call in calls:
            made = SimpleNamespace(id=call["id"], function=SimpleNamespace(**call))
            inside = context.get_execution_facing_tool_name(call["name"])
            code = self.conversion.openai_tool_call_to_python_code(made, set(names), execution_facing_tool_name=inside)
            about = {"openai_tool_call_id": call["id"], "openai_function_name": call["name"]}
            said.append(self.message("AGENT", "EXECUTION_ENVIRONMENT", code, **about))
        self.agent.add_messages(said or [self.message("AGENT", "USER", text)])
        return self.heard(shown + max(len(said), 1))

    def heard(self, shown: int) -> dict[str, Any]:
        """Lets user and execution environment speak until it is the agent's turn; what it hears after ``shown``."""
        while True:
            last, sent = self.role.get_messages()[-1], self.context.get_current_context().max_sandbox_message_index
            done = not last.conversation_active or sent >= self.last
            if done or last.recipient == self.roles.AGENT:
                break
            self.players[last.recipient].respond()
        news = self.agent.filter_messages(self.role.get_messages()[shown:])
        return {"messages": self.conversion.to_openai_messages(news)[0], "done": done}

    def grade(self) -> dict[str, Any]:
        """The scenario's own evaluation, by its milestones and minefields."""
        found = self.scenario.evaluation.evaluate(
            execution_context=self.context.get_current_context(), max_turn_count=self.scenario.max_messages
        )
        parts = ("similarity", "milestone_similarity", "minefield_similarity")
        milestones = {index: float(match[1]) for index, match in found.milestone_mapping.items()}
        return {part: float(getattr(found, part)) for part in parts} | {"milestones": milestones}

    def message(self, sender: str, recipient: str, content: str, **call: str) -> Any:
        return self.conversion.Message(self.roles[sender], self.roles[recipient], content, **call)

    def scripted(self, texts: list[str]) -> Any:
        """A user who says ``texts`` in turn, and then ends the conversation."""
        end = "end_parameters = {}\nend_response = end_conversation(**end_parameters)\nprint(repr(end_response))"

        def respond(role: Any, ending_index: int | None = None) -> None:
            said = ("AGENT", texts.pop(0)) if texts else ("EXECUTION_ENVIRONMENT", end)
            role.add_messages([self.message("USER", *said)])

        return type("User", (self.role,), {"role_type": self.roles.USER, "respond": respond})()


def _model(model: str, url: str, api_key_variable: str = "OPENAI_API_KEY") -> Any:
    """The checkout's user for OpenAI's interface. The key is read from the environment."""
    user = import_module("tool_sandbox.roles.openai_api_user").OpenAIAPIUser
    made = type("User", (user,), {"model_name": model, "__init__": lambda self: None})()
    key = os.environ.get(api_key_variable) or "none"  # the client refuses to work without any
    made.openai_client = import_module("openai").OpenAI(base_url=url, api_key=key)
    return made


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)  # it may hang in the checkout's code


def main(checkout: str) -> None:
    """Answers requests until there are no more. What the checkout prints goes to standard error."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:] = [checkout, *sys.path, os.path.dirname(__file__)]  # the last for the module of the clock
    sandbox = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            sandbox = sandbox or Sandbox()
            answer = json.dumps(getattr(sandbox, request.pop("do"))(**request))
        except Exception as error:  # of the checkout, of the user's model
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        answers.write(answer + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
