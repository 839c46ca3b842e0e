"""SI-MCTS: the tree kernel, self-reward, the runner, preference pairs, records."""
