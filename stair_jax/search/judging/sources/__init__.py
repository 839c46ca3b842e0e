"""Who judges: one file per source of scores."""
