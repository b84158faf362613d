"""Programs that score checkpoints, adapters and routers on a target, and the report that shows a whole run."""
