"""Relations that instructions state between numbers."""

RELATIONS = ("less than", "at least")


def holds(number: int, relation: str, limit: int) -> bool:
    """Whether a number stands in one of `RELATIONS` to the limit."""
    return number < limit if relation == "less than" else number >= limit
