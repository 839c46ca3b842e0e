"""Self-reward: judges, their prompts and replies, and the reward of an answer."""
