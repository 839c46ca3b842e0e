"""How much of a run stands in the file of its report."""

from dataclasses import dataclass

from stair_jax.settings import Settings, setting


@dataclass(frozen=True)
class ReportSettings(Settings):
    """Of `stair-jax report`. What is left out, the page says, and `stair-jax view` shows it.

    Attributes:
      trees: search trees of a run at most whose steps are in the file.
      pairs: preference pairs of a run at most whose texts are in the file.
      cases: cases of a run's evaluations at most whose answers are in the file.
      size: MiB in the file that the texts of each of these three may take at most.
    """

    trees: int = setting(2000, least=0)
    pairs: int = setting(10_000, least=0)
    cases: int = setting(10_000, least=0)
    size: float = setting(16.0, above=0)
