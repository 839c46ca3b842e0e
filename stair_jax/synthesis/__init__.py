"""Answers written by a model, judged, and made into training data."""
