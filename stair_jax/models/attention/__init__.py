"""Attention over whole sequences: its backends, and the mask they share."""
