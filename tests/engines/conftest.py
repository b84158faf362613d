"""Fixtures of the tiny model, for the tests of engines."""

from tiny_chat import *  # noqa: F403 (fixtures)
