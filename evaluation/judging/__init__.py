"""Judges an analyst: what it selects, against failures whose causes are known."""
