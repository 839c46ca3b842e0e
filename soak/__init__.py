"""Soak tests: long tests of robustness (kills, fuzzing, leaks), outside of the test command.

    bash launch/soak.sh            # lists them
    bash launch/soak.sh NAME [--size N] [--seed S]

Each soak test is a module with a function `run(size, seed, folder)` that returns a `Result`. The
test suite calls the same functions with a small size. Results are in docs/reliability.md.
"""

import os

# Runs that are compared byte for byte need a deterministic device: the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
