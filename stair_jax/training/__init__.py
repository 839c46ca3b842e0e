"""Training: losses, log-probabilities, the jitted step, the training loop, checkpoints."""
