"""Stage 2: capability → validated, calibrated environment."""
