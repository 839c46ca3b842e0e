"""The pocket world: a small synthetic language with ground truth, to run the whole method on."""
