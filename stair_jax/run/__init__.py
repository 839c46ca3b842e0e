"""A run: its config as a checked list of stages, and what carries them out one after another."""
