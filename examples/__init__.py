"""Small programs to read first. Run them from a checkout: ``python -m examples.NAME``."""
