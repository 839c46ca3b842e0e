"""The pocket world: a small generated language with ground truth."""
