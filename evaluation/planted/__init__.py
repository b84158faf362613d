"""Targets with planted faults: scripted agents whose failures have causes that we know."""
