"""What a run tells: metrics, progress, compilations."""
