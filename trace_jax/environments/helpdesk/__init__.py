"""Helpdesk: a multi-turn tool-use desk of a small shop; the built-in target."""
