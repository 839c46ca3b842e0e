"""Test-time search guided by a process reward model or by self-reward."""
