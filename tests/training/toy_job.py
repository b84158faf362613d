"""Two adapters on the toy in one run; as a program, one of several processes that train them together.

toy_job.py ADDRESS PROCESSES PROCESS JSON: the runs in JSON one after the other, ``{"directory", "mesh", settings…}``.
``"killed"`` [process, step] ends that process by SIGKILL after the step; ``"slow"``: seconds that an episode takes;
``"hold"``: from this step on, a checkpoint whose files are all written waits for ever before it is renamed to be whole.
"""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import toy

from trace_jax.parallel import processes
from trace_jax.parallel.mesh import MeshSettings, make_mesh
from trace_jax.parallel.processes import is_first, start, together
from trace_jax.parallel.termination import Terminated, Termination
from trace_jax.training.job import Job
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train

NAMES = ("early", "late")


class Late(toy.Toy):
    """The opposite of the toy's reward."""

    def grade(self):
        return toy.Outcome(1.0 - super().grade().reward)


class Slow(toy.Toy):
    seconds = 0.0

    def reset(self, seed):
        time.sleep(self.seconds)
        return super().reset(seed)


def jobs(directory, names=NAMES, environments=(toy.Toy, Late)):
    early = toy.training_environment(environments[0], name="a")
    late = toy.training_environment(environments[1], (7, 8), "b")
    by_name = dict(zip(NAMES, [early, late], strict=True))
    return [
        Job(name=name, directory=Path(directory) / name, environments=[by_name[name]], capabilities=(name,))
        for name in names
    ]


def run(directory, names=NAMES, mesh=None, devices=None, progress=None, termination=None, environments=(toy.Toy, Late),
        **settings):  # fmt: skip
    """``train`` on both (or one of them): the manifests."""
    decoder, renderer, engine = toy.parts()
    defaults = dict(
        max_steps=3, groups_per_step=2, num_generations=4, rank=4, alpha=4.0, learning_rate=1e-2,
        micro_batch_tokens=300, max_recollections=0)  # fmt: skip
    return train(
        jobs(directory, names, environments),
        decoder=decoder,
        engine=engine if is_first() else None,
        renderer=renderer,
        training=GRPOConfig(**(defaults | settings)),
        rollout=toy.ROLLOUT,
        seed=11,
        base="base-1",
        mesh=None if mesh is None else make_mesh(MeshSettings(**mesh), devices),
        termination=termination,
        telemetry=toy.SILENT,
        progress=progress,
    )


def hold_checkpoints(step):
    """Orbax's last act of a save never comes for ``step`` and later."""
    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath as Temporary

    finalize = Temporary.finalize

    async def held(self, *arguments, **settings):
        if (name := self.get_final().name).isdigit() and int(name) >= step:
            print("held", flush=True)
            time.sleep(1000)
        return await finalize(self, *arguments, **settings)

    Temporary.finalize = held


def main():
    address, number, me = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if number > 1:
        processes.HEARTBEAT_SECONDS = 10
        start(address, number, me)
    for settings in json.loads(sys.argv[4]):
        killed, Slow.seconds = settings.pop("killed", None), settings.pop("slow", 0.0)
        if "hold" in settings:
            hold_checkpoints(settings.pop("hold"))

        def report(step, killed=killed):
            print(step.name, step.counters.step, flush=True)
            if killed == [me, step.counters.step] and step.name == NAMES[-1]:
                os.kill(os.getpid(), signal.SIGKILL)

        with Termination() as termination:
            environments = (Slow, Late) if Slow.seconds else (toy.Toy, Late)
            run(**settings, progress=report, termination=termination, environments=environments)
        print("done", jax.device_count(), flush=True)


if __name__ == "__main__":
    with together() if len(sys.argv) > 1 else nullcontext():
        try:
            main()
        except Terminated:
            sys.exit(Terminated.status)
