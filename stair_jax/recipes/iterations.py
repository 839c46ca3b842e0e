"""Iterations of search, pairs and step-level DPO, as stages and sections of a config."""

from ml_collections import ConfigDict


def iteration_stages(count: int) -> tuple[str, ...]:
    """The stages `search1`, `pairs1`, `iter1`, `search2`, ... of a number of iterations."""
    kinds = (("search", "search"), ("preferences", "pairs"), ("dpo", "iter"))
    return tuple(f"{kind}:{name}{i}" for i in range(1, count + 1) for kind, name in kinds)


def link_iterations(config: ConfigDict, count: int, first: str) -> str:
    """Adds the sections by which each iteration goes on from the policy of the one before.

    Args:
      config: the config of the run.
      count: number of iterations.
      first: the stage whose policy the first iteration begins with.

    Returns:
      The stage that makes the last policy.
    """
    previous = first
    for i in range(1, count + 1):
        config[f"search{i}"] = ConfigDict({"model": previous, "file": f"prompts{i}.jsonl"})
        config[f"pairs{i}"] = ConfigDict({"trees": f"search{i}"})
        config[f"iter{i}"] = ConfigDict({"model": previous, "preferences": f"pairs{i}"})
        previous = f"iter{i}"
    return previous
