"""The library of capability detectors: what each episode needed, and whether it was shown."""
