"""The decoder as an engine runs it: fused kernels over a paged KV cache."""
