"""Losses, log-probabilities, the training step and loop, checkpoints."""
