"""The configs of the study: its arms and ablations, on real models and in the pocket world."""
