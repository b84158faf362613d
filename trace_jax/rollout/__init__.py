"""Engines, token-exact chat, and the agent loop."""
