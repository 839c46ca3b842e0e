"""Attention over the paged KV cache: its backends, and the layouts of pages."""
