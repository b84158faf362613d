"""A target must not train on what it is judged by: refuses splits that overlap."""

from trace_jax.contract.trajectory import Message, Split
from trace_jax.environments.protocol import Target
from trace_jax.errors import UserError

_OPENED = 8  # seeds that both splits use and that are opened in both, spread over all of them
_SPLITS: tuple[Split, ...] = ("train", "held_out")


def check_splits(target: Target, name: str) -> None:
    """Raises UserError if a task of ``target`` is no integer, or if its splits hold the same tasks.

    A target may number the tasks of both splits alike, as long as they are different tasks: a seed that is in both must
    open with different messages in each.
    """
    for split in _SPLITS:
        strange = [task for task in target.tasks(split) if type(task) is not int]
        if strange:
            raise UserError(f"target {name!r}: its {split} task {strange[0]!r} is no integer: tasks are seeds of reset")
    shared = sorted(set(target.tasks("train")) & set(target.tasks("held_out")))
    for seed in shared[:: max(len(shared) // _OPENED, 1)]:
        opened = [_opening(target, split, seed) for split in _SPLITS]
        if opened[0] is not None and opened[0] == opened[1]:
            raise UserError(
                f"target {name!r}: task {seed} of the split train is task {seed} of held_out too: give the splits "
                "different seeds, or an environment that draws different tasks for each"
            )


def _opening(target: Target, split: Split, seed: int) -> tuple[Message, ...] | None:
    """The first messages of a task; None if it cannot be opened, which its episodes will report."""
    try:
        return tuple(target.environment(split).reset(seed).messages)
    except Exception:  # an environment is foreign code
        return None
