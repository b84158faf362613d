"""An endpoint for each test."""

from scripted_endpoint import served

__all__ = ["served"]
