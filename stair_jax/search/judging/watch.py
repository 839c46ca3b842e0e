"""Watches the judgements of a search while it runs, and says when they have become of no use."""

from collections import deque

from stair_jax.errors import UserError
from stair_jax.search.judging.judges import Judgement

WINDOW = 200  # judgements that are looked at
_KEPT = "the trees that are finished are kept"


class JudgeWatch:
    """The last judgements of a search.

    A judge that was fit for its task before the search may lose its format or its opinion, and a
    reward that is missing, or the same for every answer, gives no pair.
    """

    def __init__(self, min_readable: float, window: int = WINDOW):
        """Nothing was judged yet.

        Args:
          min_readable: least share of judgements with all of their scores.
          window: number of judgements that are looked at; earlier ones are forgotten.
        """
        self._min_readable = min_readable
        self._was_read: deque[bool] = deque(maxlen=window)
        self._num_read = 0
        self._latest: tuple[float | None, float | None] = (None, None)
        self._num_alike = 0  # how often the latest one came without another between

    def see(self, judgement: Judgement) -> None:
        """Takes note of a judgement.

        Raises:
          UserError: of the last `window` ones too few could be read, or all are alike.
        """
        scores = (judgement.helpfulness, judgement.safety)
        was_read, window = self._was_read, self._was_read.maxlen or 0
        if len(was_read) == window:
            self._num_read -= was_read[0]
        was_read.append(None not in scores)
        self._num_read += was_read[-1]
        self._num_alike = self._num_alike + 1 if scores == self._latest else 1
        self._latest = scores
        if len(was_read) < window:
            return
        share = self._num_read / window
        if share < self._min_readable:
            raise UserError(
                f"the search stops: of the last {window} judgements {share:.0%} could be read, "
                f"less than search.judge.min_readable={self._min_readable:g}; {_KEPT}. Try "
                'search.judge.mode="expected", or another wording or judge: '
                "`stair-jax judge check MODEL` tries several"
            )
        if self._num_alike >= window:
            raise UserError(
                f"the search stops: the last {window} judgements are all alike (helpfulness "
                f"{scores[0]}, safety {scores[1]}), so that no answer is preferred to another; "
                f'{_KEPT}. Try search.judge.safety_score="expected", another wording or judge '
                "(`stair-jax judge check MODEL` tries several), or harder prompts"
            )
