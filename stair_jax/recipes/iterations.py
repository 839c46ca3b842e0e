"""Iterations of search, pairs and step-level DPO, as stages and sections of a config."""

from ml_collections import ConfigDict

_KINDS = ("search", "preferences", "dpo")
_NAMES = ("search", "pairs", "iter")


def iteration_stages(count: int, names: tuple[str, str, str] = _NAMES) -> tuple[str, ...]:
    """The stages `search1`, `pairs1`, `iter1`, `search2`, ... of a number of iterations.

    Args:
      count: number of iterations.
      names: of a search, of its pairs, and of the policy trained on them, without their number.
    """
    return tuple(
        f"{kind}:{name}{i}"
        for i in range(1, count + 1)
        for kind, name in zip(_KINDS, names, strict=True)
    )


def unlink_iterations(config: ConfigDict, count: int) -> None:
    """Takes the sections of iterations away that `link_iterations` has added."""
    for i in range(1, count + 1):
        for name in _NAMES:
            del config[f"{name}{i}"]


def link_iterations(
    config: ConfigDict,
    count: int,
    first: str,
    names: tuple[str, str, str] = _NAMES,
    prompts: str = "",
) -> str:
    """Adds the sections by which each iteration goes on from the policy of the one before.

    Args:
      config: the config of the run.
      count: number of iterations.
      first: the stage whose policy the first iteration begins with.
      names: as of `iteration_stages`.
      prompts: the stage that holds the prompts; empty: that of the section `search`.

    Returns:
      The stage that makes the last policy.
    """
    search, pairs, policy = names
    previous = first
    for i in range(1, count + 1):
        own = {"prompts": prompts} if prompts else {}
        config[f"{search}{i}"] = ConfigDict({"model": previous, "file": f"prompts{i}.jsonl", **own})
        config[f"{pairs}{i}"] = ConfigDict({"trees": f"{search}{i}"})
        config[f"{policy}{i}"] = ConfigDict({"model": previous, "preferences": f"{pairs}{i}"})
        previous = f"{policy}{i}"
    return previous
