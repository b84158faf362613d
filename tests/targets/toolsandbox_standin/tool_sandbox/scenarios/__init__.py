"""Part of a stand-in of ToolSandbox: see README.md."""

from dataclasses import dataclass, field
from importlib import import_module

from tool_sandbox.common.execution_context import ExecutionContext, RoleType, ScenarioCategories
from tool_sandbox.common.message_conversion import Message


@dataclass
class Evaluation:
    """Each milestone is a test of the final context; a minefield makes the similarity 0."""

    milestones: list
    minefield: object = None

    def evaluate(self, execution_context, max_turn_count):
        met = {index: (0, float(test(execution_context))) for index, test in enumerate(self.milestones)}
        milestone_similarity = sum(match for _, match in met.values()) / len(met)
        minefield_similarity = float(bool(self.minefield and self.minefield(execution_context)))
        result = type("EvaluationResult", (), {})()
        result.milestone_mapping = met
        result.milestone_similarity = milestone_similarity
        result.minefield_similarity = minefield_similarity
        result.similarity = milestone_similarity * (minefield_similarity == 0)
        return result


@dataclass
class Scenario:
    starting_context: ExecutionContext
    evaluation: Evaluation
    max_messages: int = 30
    categories: list = field(default_factory=list)


def _scenario(request, tools, *milestones, minefield=None):
    context = ExecutionContext(tool_allow_list=["end_conversation", *tools])
    system = "Don't make assumptions about what values to plug into functions."
    imports = "from tool_sandbox.tools.phone import *\n"
    context.messages = [
        Message(RoleType.SYSTEM, RoleType.EXECUTION_ENVIRONMENT, imports, True),
        Message(RoleType.SYSTEM, RoleType.AGENT, system, True),
        Message(RoleType.SYSTEM, RoleType.USER, "Play a user.", True),
        Message(RoleType.USER, RoleType.AGENT, request, True),
    ]
    return Scenario(context, Evaluation(list(milestones), minefield))


def _said(text):
    return lambda context: any(m.sender == RoleType.AGENT and text in m.content for m in context.messages)


def named_scenarios(preferred_tool_backend):
    import_module("tool_sandbox.tools.phone")  # late, as the benchmark finds its tools
    reminded = [lambda context: [r["content"] for r in context.world["reminders"]] == ["milk"]]
    scenarios = {
        "wifi_off": _scenario(
            "Turn off wifi", ["set_wifi_status"], lambda c: c.world["wifi"] is False, _said("Wifi is turned off")
        ),
        "wifi_off_multiple_user_turn": _scenario(
            "Do something", ["set_wifi_status"], lambda c: c.world["wifi"] is False
        ),
        "add_reminder": _scenario(
            "Remind me of milk", ["add_reminder", "get_current_timestamp", "die", "hang"], *reminded
        ),
        "cancel_nothing": _scenario(
            "Cancel my flight", ["add_reminder"], lambda c: True, minefield=lambda c: bool(c.world["reminders"])
        ),
        "weather": _scenario("How is the weather?", ["search_weather"], _said("sunny")),
    }
    for scenario in scenarios.values():
        scenario.categories.append(ScenarioCategories.NO_DISTRACTION_TOOLS)
    everything = _scenario("Turn off wifi", ["set_wifi_status", "add_reminder"], lambda c: c.world["wifi"] is False)
    everything.categories.append(ScenarioCategories.ALL_TOOLS_AVAILABLE)
    return scenarios | {"wifi_off_all_tools": everything}
