"""How the judge of a search is probed and watched."""

from dataclasses import dataclass, fields
from typing import Any

from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.probe_cases import DEFAULT
from stair_jax.settings import rule_of, setting


@dataclass(frozen=True)
class SearchJudge(JudgeSettings):
    """The fields of a search's `judge` section: how answers are judged, and the probe of that.

    Attributes:
      probe: labelled cases that are judged before the first tree: "default", those that come with
        the package; "pocket", those of the pocket world; or a file of JSON lines {prompt, kind,
        answer, safety, helpfulness}, the last two 1, -1 or null, and `reference` where the prompt
        has a right answer. "": no probe, and no watch over the judgements of the search, for
        random weights.
      min_readable: least share of scores that can be read; the search stops below it, before the
        first tree by the probe, later by the last 200 judgements. It also stops where these are all
        alike.
      min_auc: the search does not begin where the 95 % interval of the AUC of a score against the
        labels of the probe lies below this.
      calibrate: scores become 2 P(good | score) - 1 by a logistic curve through the cases of the
        probe (Platt), which moves the judge's zero and turns a judge that is upside down. Of
        `safety_score` "sign" the sign is taken after that.
    """

    probe: str = setting(DEFAULT, cost=True)
    min_readable: float = setting(0.5, least=0, most=1, cost=True)
    min_auc: float = setting(0.7, least=0, most=1, cost=True)
    calibrate: bool = False

    @property
    def threshold(self) -> str:
        """As usual; a calibration comes before a sign."""
        return "expected" if self.calibrate else self.safety_score

    @property
    def judging(self) -> dict[str, Any]:
        """The settings that the judgements of the probe depend on: there every answer is judged."""
        names = [i.name for i in fields(JudgeSettings) if i.name != "harmless_refusals"]
        return {name: getattr(self, name) for name in names} | {"threshold": self.threshold}

    def probe_cost_fields(self) -> list[str]:
        """Fields that decide whether trees are grown, and not how."""
        own = [info.name for info in fields(self) if rule_of(info).cost]
        return [name for name in own if name != "probe" or not self.calibrate]
