"""A two-turn toy desk and a tiny random model: a whole training run in a second. As a program: until it is killed."""

import json
import os
import signal
import sys
from functools import cache
from pathlib import Path

from flax import nnx

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.contract.trajectory import Message
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.collection import Group
from trace_jax.training.group_source import GroupSource, TrainingEnvironment
from trace_jax.training.job import Job
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train

ROLLOUT = RolloutSettings(max_turns=4, max_turn_tokens=10, max_episode_tokens=96, max_seconds=60.0, concurrency=64)
SILENT = TelemetrySettings(tensorboard=False)


class Toy:
    """Two turns; the reward is the share of answers' characters that come early in the alphabet of bytes."""

    name = "toy"
    tools = ()
    resets = 0
    kill_at_reset = -1  # the process dies by SIGKILL in this reset

    def reset(self, seed):
        type(self).resets += 1
        if type(self).resets == self.kill_at_reset:
            os.kill(os.getpid(), signal.SIGKILL)
        self.answers = []
        return Observation((Message(role="system", content="toy"), Message(role="user", content=f"task {seed}")))

    def step(self, message):
        self.answers.append(message.content or "")
        done = len(self.answers) == 2
        return Observation(() if done else (Message(role="user", content="again"),), done)

    def grade(self):
        text = "".join(self.answers)
        return Outcome(sum(ord(letter) < 90 for letter in text) / max(len(text), 1))


ROLLOUT = RolloutSettings(max_turns=4, max_episode_tokens=96, max_seconds=60.0, max_turn_tokens=10)


@cache
def parts():
    """Decoder, renderer and engine, shared by all runs of the process."""
    tokenizer = train_tokenizer(["task again toy"], 270)
    config = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
        intermediate_size=24, tie_embeddings=True)  # fmt: skip
    decoder, renderer = Decoder(config, nnx.Rngs(1)), TinyRenderer(tokenizer)
    decoder.embed[...] *= 10  # at its initial size, the tied head can hardly prefer any token
    engine = EmbeddedEngine(
        decoder, config, renderer.stop_token_ids, EngineSettings(slots=8, capacity=96), max_rank=4, max_adapters=6
    )
    return decoder, renderer, engine


def training_environment(environment=Toy, seeds=(3, 4, 5, 6), name="toy"):
    return TrainingEnvironment(name, InProcess(environment), seeds, "toy", "train")


def base_groups(number, size=4):
    """The first groups of ``run``, played by the base."""
    _, renderer, engine = parts()
    source = GroupSource([training_environment()], "toy-adapter", 11, ROLLOUT)
    groups = [source.specs(group, size, None) for group in range(number)]
    specs = [spec for specs in groups for spec in specs]
    played = collect(specs, engine=engine, renderer=renderer, settings=ROLLOUT, base="base-1")
    return [Group(tuple(played[i : i + size])) for i in range(0, len(played), size)]


def run(directory, *, environment=Toy, environments=None, base="base-1", progress=None, recorded=(), engine=None,
        termination=None, seed=11, rollout=ROLLOUT, **settings):  # fmt: skip
    """``train`` on the toy with small defaults, on ``engine`` or that of ``parts``."""
    decoder, renderer, own = parts()
    defaults = dict(
        max_steps=5, groups_per_step=3, num_generations=4, rank=4, alpha=4.0, learning_rate=1e-2,
        micro_batch_tokens=600, max_recollections=1)  # fmt: skip
    job = Job(
        name="toy-adapter", directory=Path(directory), environments=environments or [training_environment(environment)],
        capabilities=("early_letters",), recorded=recorded)  # fmt: skip
    (manifest,) = train(
        [job], decoder=decoder, engine=engine or own, renderer=renderer, training=GRPOConfig(**(defaults | settings)),
        rollout=rollout, seed=seed, base=base, telemetry=SILENT, progress=progress, termination=termination,
    )  # fmt: skip
    return manifest


if __name__ == "__main__":
    # toy.py DIRECTORY KILL_AT_RESET KILL_AFTER_STEP JSON_SETTINGS: dies at whichever comes first.
    Toy.kill_at_reset, last_step = int(sys.argv[2]), int(sys.argv[3])

    def report(step):
        print("step", step.counters.step, flush=True)
        if step.counters.step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)  # while the checkpoint of this step is being written

    settings = json.loads(sys.argv[4])
    settings["snapshots"] = tuple(settings.get("snapshots", ()))
    run(sys.argv[1], progress=report, **settings)
