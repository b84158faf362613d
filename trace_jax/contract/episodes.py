"""The episodes in a JSON Lines file of trajectories."""

from trace_jax.contract.files import read_records
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory


def read_episodes(path: PathLike) -> tuple[Trajectory, ...]:
    """The trajectories at ``path`` in the order of writing, less the broken records of episodes played again.

    Of an id that broke every time the last record is left. Raises UserError as ``read_records`` does.
    """
    records = tuple(read_records(path, Trajectory))
    counts = {one.id: one for one in sorted(records, key=lambda one: not one.broken)}  # a graded one, else the last
    return tuple(one for one in records if not one.broken or one is counts[one.id])
