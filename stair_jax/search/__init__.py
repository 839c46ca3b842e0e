"""Safety-informed MCTS (SI-MCTS): batched tree search, self-reward, preference pairs, records."""
