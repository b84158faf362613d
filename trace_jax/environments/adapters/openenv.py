"""An OpenEnv server as a target. Needs the package ``openenv`` where it runs; the server may be anywhere.

The server's schema of actions decides how the agent acts: one text field is filled with what the agent says; several
fields are the arguments of the tool ``act``; and a server of MCP tools offers these. The agent sees an observation as
its text if it has one text field, else as JSON.
"""

import importlib
import json
import urllib.request
from typing import Any

from trace_jax.contract.trajectory import Message, Split, Tool, ToolCall
from trace_jax.environments.adapters.returns import ReturnRange, file_name, seeds
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.unreadable import unreadable
from trace_jax.errors import UserError

_INSTALL = "install it where the environment runs: pip install openenv"
_TIMEOUT = 30.0  # seconds in which the server tells its schema
ACT = "act"


class OpenEnv:
    """The environments of the server at ``url``: ``number`` tasks a split, each the seed of ``reset``.

    Args:
        returns: the least and greatest sum of the rewards of an episode, which become 0 and 1.

    Raises:
        UserError: the package or the server is missing, or ``returns`` is.
    """

    results: dict[str, Any] = {}

    def __init__(self, url: str, returns: tuple[float, float] | None = None, number: int = 1000) -> None:
        self.name, self._url, self._number = file_name(f"openenv_{url}"), url.rstrip("/"), number
        self._range = ReturnRange(f"openenv:{url}", returns)
        try:
            importlib.import_module("openenv")
        except ImportError as error:
            raise UserError(f"target 'openenv:{url}': {error}: {_INSTALL}") from None
        self._schema = _action_schema(self._url)

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return seeds(split, self._number)

    def environment(self, split: Split) -> "OpenEnvEpisode":
        """A new session with the server."""
        return OpenEnvEpisode(self.name, self._url, self._schema, self._range)


class OpenEnvEpisode:
    """One session."""

    def __init__(self, name: str, url: str, schema: dict[str, Any], returns: ReturnRange) -> None:
        client: Any = importlib.import_module("openenv").GenericEnvClient(base_url=url)
        self.name, self._client, self._range = name, client.sync(), returns
        fields = {key: value for key, value in schema.get("properties", {}).items() if key != "metadata"}
        self._mcp = not fields or {"tool_name", "arguments"} <= fields.keys()
        texts = [key for key, value in fields.items() if value.get("type") == "string"]
        self._text = texts[0] if len(fields) == len(texts) == 1 else None
        self.tools = self._offered(schema, fields)

    def reset(self, task: int) -> Observation:
        self._total, self._done = 0.0, False
        found = self._client.reset(seed=task)
        self._total += float(found.reward or 0.0)
        return Observation((Message(role="user", content=_text_of(found.observation)),), bool(found.done))

    def step(self, message: Message) -> Observation:
        if message.tool_calls:
            answers = tuple(self._answer(call) for call in message.tool_calls)
            return Observation(answers, self._done)
        if self._text is None:  # the agent has nothing more to do
            return Observation((), True)
        text, _ = self._act({self._text: message.content or ""})
        return Observation((Message(role="user", content=text),), self._done)

    def grade(self) -> Outcome:
        return Outcome(self._range.reward(self._total), {"return": self._total})

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def _offered(self, schema: dict[str, Any], fields: dict[str, Any]) -> tuple[Tool, ...]:
        if self._text is not None:
            return ()
        if not self._mcp:
            parameters = {**schema, "properties": fields}
            return (Tool(name=ACT, description=schema.get("description") or "Act.", parameters=parameters),)
        self._client.reset()
        listed = self._client.step({"type": "list_tools"}).observation["tools"]
        return tuple(
            Tool(name=tool["name"], description=tool["description"], parameters=tool["input_schema"]) for tool in listed
        )

    def _answer(self, call: ToolCall) -> Message:
        problem = unreadable(call, [tool.name for tool in self.tools])
        if problem is None and self._done:
            problem = "the episode is over"
        if problem is None:
            arguments = call.arguments or {}
            action = {"type": "call_tool", "tool_name": call.name, "arguments": arguments} if self._mcp else arguments
            text, refused = self._act(action)
            content = json.dumps({"error": text}) if refused else text
        else:
            content = json.dumps({"error": problem})
        return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)

    def _act(self, action: dict[str, Any]) -> tuple[str, bool]:
        """The observation as text, and whether the server refused the action as invalid."""
        try:
            found = self._client.step(action)
        except RuntimeError as error:
            if "VALIDATION_ERROR" in str(error):
                return str(error), True
            raise
        self._total += float(found.reward or 0.0)
        self._done = bool(found.done)
        return _text_of(found.observation), False


def _text_of(observation: dict[str, Any]) -> str:
    shown = {key: value for key, value in observation.items() if key not in ("done", "reward", "metadata")}
    texts = list(shown.values())
    if "tool_name" in shown and "result" in shown:  # of an MCP tool
        return json.dumps({"error": shown["error"]} if shown.get("error") else shown["result"], ensure_ascii=False)
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else json.dumps(shown, ensure_ascii=False)


def _action_schema(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/schema", timeout=_TIMEOUT) as response:
            schema = json.load(response)["action"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"target 'openenv:{url}': {url}/schema cannot be read ({error}): start the server, or correct the address"
        ) from None
    if not isinstance(schema, dict):
        raise UserError(f"target 'openenv:{url}': {url}/schema has no schema of actions: is it an OpenEnv server?")
    return schema
