"""Tells what contains generated code on this machine.

    python -m launch.check_sandbox

The program starts the sandbox and prints what it found: the mode in which code runs that a language model wrote, its
limits, and why each better mode does not work here. The exit status is 1 if nothing contains such code. It is then
refused, unless a run sets sandbox.allow_unsandboxed=true.
"""

from evaluation.program import run
from trace_jax.sandbox import Sandbox, SandboxSettings


def main() -> None:
    """Start the sandbox and describe it. Raises UserError if there is none."""
    sandbox = Sandbox(SandboxSettings())
    print(sandbox.describe())
    sandbox.close()


if __name__ == "__main__":
    run(main)
