"""Fixtures of the tiny model, for the tests of rollouts."""

from tiny_chat import *  # noqa: F403 (fixtures)
