"""Patterns of behaviour and failed checks that can be read off any target's episodes."""
