"""What spans devices and processes: checkpoints."""
