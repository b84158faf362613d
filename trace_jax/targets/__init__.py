"""Public benchmarks as targets. Each imports its benchmark's package when it is made, in a worker's own Python."""
