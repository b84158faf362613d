"""A target must not train on what it is judged by: refuses splits that overlap, and tasks without a usable id."""

from collections import Counter

from trace_jax.contract.trajectory import Message, Split
from trace_jax.environments.protocol import Target, Task
from trace_jax.errors import UserError

SPLITS: tuple[Split, ...] = ("train", "held_out")
_OPENED = 8  # tasks that both splits list and that are opened in both, spread over all of them


def check_splits(target: Target, name: str, opened: int = _OPENED) -> None:
    """Raises UserError for tasks without a usable id (``check_ids``), and if the splits hold the same tasks.

    A target may call the tasks of both splits alike, as long as they are different tasks: a task that is in both must
    open with different messages in each. ``opened`` of them are opened, spread over all.
    """
    for split in SPLITS:
        check_ids(target, name, split)
    held_out = {str(task) for task in target.tasks("held_out")}
    shared = [task for task in target.tasks("train") if str(task) in held_out]
    for task in shared[:: max(len(shared) // opened, 1)]:
        openings = [_opening(target, split, task) for split in SPLITS]
        if openings[0] is not None and openings[0] == openings[1]:
            raise UserError(
                f"target {name!r}: task {task!r} of the split train is task {task!r} of held_out too: give the splits "
                "different tasks, or an environment that draws different ones for each"
            )


def check_ids(target: Target, name: str, split: Split) -> None:
    """Raises UserError for a task that is neither an integer nor a printable text, and for one that is listed twice."""
    tasks = target.tasks(split)
    for task in tasks:
        if type(task) is not int and not (isinstance(task, str) and task and task.isprintable()):
            raise UserError(
                f"target {name!r}: its {split} task {task!r} is neither an integer nor a printable text: a task is "
                "what reset gets, a seed or a name"
            )
    twice = [task for task, count in Counter(map(str, tasks)).items() if count > 1]
    if twice:
        raise UserError(f"target {name!r}: its {split} tasks hold {twice[0]!r} twice: list each task once")


def _opening(target: Target, split: Split, task: Task) -> tuple[Message, ...] | None:
    """The first messages of a task; None if it cannot be opened, which its episodes will report."""
    try:
        return tuple(target.environment(split).reset(task).messages)
    except Exception:  # an environment is foreign code
        return None
