"""Stage 3: an environment in, a LoRA adapter out. GRPO on whole episodes, and supervised training of a tiny base."""
