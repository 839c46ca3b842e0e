"""Which of a few letters an answer chooses, such as A or B."""

import re

from stair_jax.search.judging.sources.checkable_answers import is_right

# Where a letter is not announced: "B is better", then "answer B"; "A" alone may be an article.
_BETTER = (
    r"(?<!\w)([{0}])[*)]* (?:is|was|seems|looks|appears|would be) "
    r"(?:\w+ )?(?:better|best|right|correct|preferable)\b"
)
_NAMED = r"(?:[Aa]nswer|[Oo]ption|[Cc]hoice|[Rr]esponse)[ :*(]+([{0}])(?!\w)"
_ANY = r"(?<![\w'])([{0}])(?!\w)"


def letter_said(answer: str, letters: str) -> str | None:
    """The letter that an answer chooses.

    It is what the answer announces or consists of ("The answer is (B)", "B", "B) because"). Else it
    is the only letter that is said to be the better one; or else the only letter of these that the
    answer holds, where it is named as an answer, option, choice or response.

    Args:
      answer: text of the output block.
      letters: capitals from A to J, such as "AB".

    Returns:
      the letter; None: the answer gives none, or several.
    """
    if letter := next((letter for letter in letters if is_right(answer, letter)), None):
        return letter
    better, named, held = (
        set(re.findall(pattern.format(letters), answer)) for pattern in (_BETTER, _NAMED, _ANY)
    )
    if len(better) == 1:
        return str(better.pop())
    return str(named.pop()) if len(named) == len(held) == 1 else None
