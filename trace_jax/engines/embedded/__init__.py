"""The embedded engine: our decoder with a key/value cache and continuous batching, in the caller's process."""
