"""Plans: what a run will take on devices that need not be there."""
