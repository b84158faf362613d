"""Checks whether the files of a work directory are as they were written.

    python -m launch.verify --workdir=DIR

The program reads every record in DIR and checks it against the contract and its own digest. It computes the digests of
adapter weights, gates, labels and episodes again. It prints a table with each file, its kind, and ok or its first
problem. The exit status is 1 if there is a problem. ``python -m launch.pipeline … --verify`` does the same. No file is
changed.
"""

from etils import epath
from rich.console import Console
from rich.table import Table

from evaluation.program import required, run
from evaluation.verification import Finding, verify
from trace_jax.errors import UserError
from trace_jax.program import WORKDIR
from trace_jax.telemetry.progress import Progress, Stage


def check(workdir: epath.Path) -> None:
    """Verify ``workdir`` and print the table. Raises UserError if a file has a problem."""
    bar: Stage | None = None
    with Progress() as progress:

        def found(finding: Finding, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = progress.stage("verify", total)
            bar.advance()

        findings = verify(workdir, found)
        if bar is not None:
            bar.finish()
    if not findings:
        raise UserError(f"{workdir}: holds no file of a run: give the work directory of a run")
    print_findings(findings)
    wrong = [finding for finding in findings if finding.problem is not None]
    if wrong:
        raise UserError(f"{workdir}: {len(wrong)} of {len(findings)} files are wrong, the first is {wrong[0].path}")
    print(f"{workdir}: {len(findings)} files, all as they were written")


def print_findings(findings: list[Finding]) -> None:
    """Print one line for each file."""
    table = Table(box=None, title_justify="left")
    for name in ("file", "what", "finding"):
        table.add_column(name, header_style="bold", overflow="fold")
    for finding in findings:
        good = f"ok ({finding.note})" if finding.note else "ok"
        table.add_row(finding.path, finding.what, good if finding.problem is None else finding.problem)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000  # lines in a file are not wrapped
    console.print(table)


def main() -> None:
    """Check the directory of --workdir."""
    check(epath.Path(required(WORKDIR)))


if __name__ == "__main__":
    run(main)
