"""Test-time search: best-of-N and beam search, guided by a PRM or by self-reward."""
