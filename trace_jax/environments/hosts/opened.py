"""The target that the settings name, in this process or in workers."""

from trace_jax.environments.adapters.schemes import expand
from trace_jax.environments.hosts.child import WorkerPlan
from trace_jax.environments.hosts.pool import Pool
from trace_jax.environments.hosts.remote_target import RemoteTarget
from trace_jax.environments.protocol import Target
from trace_jax.environments.registry import TARGETS, check_target, load_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError


def open_target(settings: TargetSettings, name: str | None = None) -> Target:
    """The target of ``settings``, or the one called ``name`` with its other settings. Raises UserError."""
    name = settings.environment if name is None else name
    if not in_workers(settings):
        return load_target(name, settings.arguments())
    target = RemoteTarget(name, open_pool(settings, name))
    check_target(target, name)
    return target


def open_unchecked(settings: TargetSettings) -> Target:
    """As ``open_target``, for the checks themselves: tasks and splits may be any."""
    if not in_workers(settings):
        target: Target = TARGETS.make(*expand(settings.environment, settings.arguments()))
        return target
    return RemoteTarget(settings.environment, open_pool(settings, settings.environment))


def in_workers(settings: TargetSettings) -> bool:
    """Whether environments run in worker processes. Raises UserError for an interpreter without workers."""
    if settings.python is not None and settings.workers == 0:
        raise UserError(
            f"target.python is {settings.python!r}, but target.workers is 0: give the number of its workers"
        )
    return settings.workers > 0


def open_pool(settings: TargetSettings, name: str) -> Pool:
    """The workers of ``settings`` for the target or environment called ``name``. None is started yet."""
    path, parameters = expand(TARGETS.built_in.get(name, name), settings.arguments())
    plan = WorkerPlan(path, parameters, settings.python, settings.step_seconds, settings.start_seconds)
    return Pool(plan, settings.workers)
