"""Programs that score adapters and routers on a target, and the report of a whole run."""
