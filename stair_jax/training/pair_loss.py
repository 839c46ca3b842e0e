"""Terms of the DPO loss that are not in the paper: against length, and for what is known of pairs.

All are off by default, and then neither the loss nor the compiled step knows of them.
"""

from dataclasses import dataclass

import jax

from stair_jax.settings import Settings, setting
from stair_jax.training.step import Micro

VALUE_GAP = "value_gap"  # of each pair, among the arrays of a micro-batch


@dataclass(frozen=True)
class PairLossSettings(Settings):
    """How the loss of a DPO pair leaves -log sigmoid(margin); the defaults do not.

    The margin is beta times the difference of the log-ratios of the two sides. Lengths are the
    tokens of the two steps, without the path before them.

    Attributes:
      length_penalty: alpha of length-regularised DPO (R-DPO, arXiv 2403.19159): alpha (|chosen| -
        |rejected|) is added to the margin in the loss, as follows from a reward of which each
        token costs alpha. A pair whose chosen side is the longer one then teaches less, one whose
        chosen side is shorter more. At `beta` 0.1 a penalty of 0.01 weighs 10 tokens as a nat.
      length_normalize: the log-ratios are means over the tokens of a side, in place of sums
        (length-normalised DPO, arXiv 2411.15124), so that a long side has no larger say than a
        short one. The margin is as much smaller: `beta` about as many times larger as a step has
        tokens; Tulu 3 has 5.
      label_smoothing: share of the pairs that are taken to be the wrong way round (conservative
        DPO): the best margin is finite then, so that no pair is pushed apart for ever.
      value_margin: of each unit of the value gap, alpha of DPO with an offset (ODPO, arXiv
        2402.10571, with the gap itself as f): alpha (chosen_value - rejected_value) is taken from
        the margin in the loss, so that a pair has to be further apart the more its values are.
        Pairs without values have an offset of 0.
    """

    length_penalty: float = setting(0.0, least=0, absent=0.0)
    length_normalize: bool = setting(False, absent=False)
    label_smoothing: float = setting(0.0, least=0, below=0.5, absent=0.0)
    value_margin: float = setting(0.0, least=0, absent=0.0)

    @property
    def is_neutral(self) -> bool:
        """Whether the loss is that of the paper."""
        return not any(
            (self.length_penalty, self.length_normalize, self.label_smoothing, self.value_margin)
        )

    def offset(self, chosen: jax.Array, rejected: jax.Array, micro: Micro) -> jax.Array | None:
        """What is added to the margin of each pair in the loss, `[B]`; None: nothing.

        Args:
          chosen: `[B]`, tokens of the chosen side.
          rejected: `[B]`, tokens of the other.
          micro: a micro-batch; holds the value gaps where there is a `value_margin`.
        """
        offset = None
        if self.length_penalty:
            offset = self.length_penalty * (chosen - rejected)
        if self.value_margin:
            by_value = -self.value_margin * micro[VALUE_GAP]
            offset = by_value if offset is None else offset + by_value
        return offset


NEUTRAL = PairLossSettings()
