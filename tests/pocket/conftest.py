"""Items to ask about, and detection of the development and held-out families by their words."""

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
    """The development or held-out family of a text, by its wording; None if it has none."""

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
