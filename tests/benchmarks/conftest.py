"""The benchmarks are no part of the package: they are found beside it."""

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def script():
    """Short steps and replies, in the words of the pocket world."""
    from benchmarks.script import Lengths, Script, Spread
    from stair_jax import pocket
    from stair_jax.text.chat import prepare_tokenizer

    folder = pathlib.Path(*pocket.__path__) / "base"
    lengths = Lengths(Spread(16, 4, 10), Spread(14, 2, 12), ends=(0.0, 0.4, 0.7))
    return Script(prepare_tokenizer(folder), lengths)
