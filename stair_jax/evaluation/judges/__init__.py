"""Judges: who grades answers that no rule of a benchmark can grade."""
