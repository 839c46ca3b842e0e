"""Reading prompts and training data, and packing token sequences."""
