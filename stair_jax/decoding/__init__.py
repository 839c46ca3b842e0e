"""The rollout engine: batched sampling and scoring behind one interface."""
