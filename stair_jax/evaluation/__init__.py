"""Benchmarks, and the metrics they report."""
