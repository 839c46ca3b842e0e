"""The rollout engine: continuous batching of sampling and scoring over a paged KV cache."""
