"""Conversations to tokens and back: one renderer a model family, tool calls, tokenizers."""
