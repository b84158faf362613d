"""The tiny agents' tokenizer and renderer."""

from tiny_chat import *  # noqa: F403 (fixtures)
