"""The language model: decoder, LoRA adapters, and the weight formats of Hugging Face and PEFT."""
