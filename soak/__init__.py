"""Soaks: long tests of what must hold (kills, fuzzed input, growth), run by hand.

    bash launch/soak.sh            # lists them
    bash launch/soak.sh NAME [--size N] [--seed S]

Each is a module with a function `run(size, seed, folder)` that returns a `Result`; the test suite
calls the same function with a small size. docs/reliability.md holds what was measured.
"""

import os

# Kept out of the way of accelerators: what is compared byte for byte runs on the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
