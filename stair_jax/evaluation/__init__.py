"""Evaluation benchmarks and their metrics."""
