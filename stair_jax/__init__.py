"""STAIR (safety alignment with introspective reasoning, arXiv 2502.02384) in JAX."""

__version__ = "0.1.0"
