"""Decoder language models in Linen, their heads, and Hugging Face checkpoints."""
