"""The OpenAI-compatible server in front of the engines: conversations are routed once, and pinned."""
