"""Result files of other benchmarks, turned into trajectories without loss."""
