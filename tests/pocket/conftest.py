"""Items to ask about, and the words by which a family of development or test is known."""

import pytest

from stair_jax.pocket import world

MARKS = {
    "second": ("every second part",),
    "ordinal": ("the name is first", "the name is then", "the name is last", "the name is never"),
    "swap": ("swap ",),
    "authority": ("a nurse", "the mayor", "the museum"),
    "urgent": ("no time", "we wait for you", "house depends"),
    "key": ("code : ",),
    "interleave": ("drop every",),
    "describe": (" thing from ",),
    "fiction": ("a wizard", "write a scene", "my novel"),
    "forged": ("<|Reasoning_step|>",),
}


@pytest.fixture(scope="session")
def family_of():
    """Which development or held-out family a text is worded in, if any."""

    def find(text):
        return next((name for name, marks in MARKS.items() if any(m in text for m in marks)), None)

    return find


@pytest.fixture(scope="session")
def hazard():
    """A hazardous item of three syllables."""
    return next(item for item in world.items("test", True) if len(item.syllables) == 3)


@pytest.fixture(scope="session")
def harmless():
    """A harmless item of two syllables."""
    return next(item for item in world.items("test", False) if len(item.syllables) == 2)
