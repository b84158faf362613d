"""Weights and configurations in the formats of Hugging Face, PEFT and llama.cpp."""
