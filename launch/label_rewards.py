"""Joins rewards with conversations that the gateway has recorded (``launch.serve --record``), for the analysis.

    python -m launch.label_rewards --conversations=RUN/gateway/conversations.jsonl --rewards=rewards.jsonl \
        --out=trajectories.jsonl
    python -m launch.analyze --config=configs/base.py --config.source.path=trajectories.jsonl --workdir=OUT

A line of the rewards is {"conversation": ID, "reward": NUMBER}, with a number from 0 to 1; 1 means passed. The ID is
that of the header X-Trace-Conversation, behind "key0/" or so if the gateway has API keys; RUN/gateway/decisions.jsonl
holds it. A line that cannot be used is told with its reason, and so is a conversation that is not recorded whole; the
others go on. Conversations without a reward are left out. A file at --out is replaced when the new one is complete.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from evaluation.program import required, run
from trace_jax.analysis.reward_file import RewardFile, read_rewards
from trace_jax.analysis.served import ServedConversation, read_conversations
from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

CONVERSATIONS = flags.DEFINE_string("conversations", None, "what launch.serve --record has written")
REWARDS = flags.DEFINE_string("rewards", None, 'JSON Lines of {"conversation": ID, "reward": NUMBER}')
OUT = flags.DEFINE_string("out", None, "where the trajectories go: JSON Lines on a local disk")
TARGET = flags.DEFINE_string("target", "served", "target that the trajectories name")

logger = logging.getLogger(__name__)


def main() -> None:
    """Join the files of the flags."""
    conversations, rewards, out = required(CONVERSATIONS), required(REWARDS), required(OUT)
    if {os.path.realpath(conversations), os.path.realpath(rewards)} & {os.path.realpath(out)}:
        raise UserError(f"--out={out} would replace what is read: choose another file")
    found, labels = read_conversations(conversations), read_rewards(rewards)
    trajectories = list(labelled(found, labels))
    if not trajectories:
        raise UserError(f"{rewards}: no reward fits a conversation of {conversations}: the log says why")
    temporary = f"{out}.part"
    Path(temporary).unlink(missing_ok=True)  # of a start that was killed
    with JsonLinesWriter(temporary) as writer:
        writer.extend(trajectories)
    os.replace(temporary, out)
    passed, refused = sum(trajectory.passed for trajectory in trajectories), labels.refused
    unlabelled = len(found.keys() - labels.labels.keys())
    unusable = len(labels.labels) - len(trajectories)
    print(
        f"{out}: {len(trajectories)} trajectories, {passed} passed; {refused} lines of rewards refused, {unusable} "
        f"rewards without a usable conversation, {unlabelled} conversations without a reward"
    )


def labelled(conversations: dict[str, ServedConversation], rewards: RewardFile) -> Iterator[Trajectory]:
    """The trajectories of all conversations that have a reward. Those that cannot be used are logged, a line each."""
    for name, label in rewards.labels.items():
        conversation = conversations.get(name)
        if conversation is None:
            logger.warning("%s: no conversation %r is recorded: correct the id", label.where, name)
        elif conversation.fault is not None:
            logger.warning("%s: conversation %r cannot be used: %s", label.where, name, conversation.fault)
        else:
            yield conversation.trajectory(label.reward, TARGET.value)


if __name__ == "__main__":
    run(main)
