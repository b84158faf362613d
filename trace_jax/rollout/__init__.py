"""The agent loop: episodes of a policy in an environment, recorded token for token."""
