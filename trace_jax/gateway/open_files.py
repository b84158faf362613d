"""The process's limit of open files, of which every connection takes one."""

import resource

from trace_jax.errors import UserError


def allow_open_files(number: int) -> None:
    """Raise the process's limit of open files to ``number``. Raises UserError if the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise UserError(
            f"{number} open files are needed and {hard} allowed: raise ulimit -n, or lower --max_connections"
        )
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
