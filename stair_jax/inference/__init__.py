"""Answers, greedy, sampled or by test-time search, guided by a PRM or by self-reward."""
