"""The episodes in a JSON Lines file of trajectories, and whose fault it was that one broke."""

from trace_jax.contract.files import read_records
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory

BROKEN_BY, SERVER = "broken_by", "server"  # key and value in ``Trajectory.extra``


def read_episodes(path: PathLike) -> tuple[Trajectory, ...]:
    """The trajectories at ``path`` in the order of writing, without the broken records of episodes played again.

    If every record of an id is broken, the last one is kept. Raises UserError as ``read_records`` does.
    """
    records = tuple(read_records(path, Trajectory))
    kept = {record.id: record for record in records if record.broken}  # the last of each id
    graded = {record.id for record in records if not record.broken}
    return tuple(
        record for record in records if not record.broken or (record.id not in graded and record is kept[record.id])
    )


def broken_by_server(trajectory: Trajectory) -> bool:
    """Whether the episode broke by an engine or a server that did not answer, and not by its environment."""
    return trajectory.broken and trajectory.extra.get(BROKEN_BY) == SERVER
