"""The programs that a user starts: ``python -m launch.NAME --config=configs/X.py``."""
