"""Decoder language models: Linen modules, attention kernels, serving, Hugging Face checkpoints."""
