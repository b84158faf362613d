"""An endpoint for the simulated users."""

from scripted_endpoint import served

__all__ = ["served"]
