"""Reports of a running program: metrics, progress, compilations."""
