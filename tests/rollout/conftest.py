"""Fixtures for the tests of rollouts: the tiny model, and an endpoint."""

from scripted_endpoint import served  # noqa: F401 (fixture)
from tiny_chat import *  # noqa: F403 (fixtures)
