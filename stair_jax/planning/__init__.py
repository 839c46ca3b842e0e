"""Plans: memory and time of a run's jitted steps, compiled ahead of time for given hardware."""
