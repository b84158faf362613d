"""Stage 1: trajectories in, selected capabilities out."""
