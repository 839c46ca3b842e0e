r"""Whether two mathematical results written in LaTeX are the same.

Rules, in this order; results are the same where what is left is:

1. mark-up goes: "$", "\(", "\[", \left, \right, \displaystyle, spaces of any kind, a last ".";
   "\$", "\%", "%" and degrees; \text{...}, \mbox, \mathrm, \textbf give their content;
2. names with one meaning become one: \dfrac, \tfrac to \frac, \le to \leq, \ne to \neq;
3. arguments without braces get them: \frac12, \sqrt2; one character loses its own: x^{2};
4. what stands before the value goes: "x =", "x \in"; a unit in words behind a number too;
5. commas between thousands go ("1,234" and "1{,}234"), but not behind a bracket: (1,234) is a pair;
6. numbers are compared as numbers: 0.5, .5, 1/2, \frac{1}{2}, 1\frac{1}{2};
7. lists without brackets, and sets, are compared in any order; tuples and intervals part by part;
8. words and single letters, such as names and choices, in any case and without brackets around.

Nothing is computed or simplified: 2\sqrt{2} is not \sqrt{8}, x+1 not 1+x.
"""

import re
from fractions import Fraction

from stair_jax.search.judging.sources.checkable_answers import announced

_BOX = re.compile(r"\\(?:boxed|fbox) *(?=\{)|\\boxed +")
_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LONGEST = 2000  # characters of a result; longer ones are compared as they are

_CHANGES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\\$|\\%|%|\^ *\\circ|\^ *\{ *\\circ *\}|\\degree|\u00b0|\$", ""),
        (r"\\[\(\)\[\]]|\\(?:left|right|bigl?|bigr?|displaystyle)(?![a-zA-Z])", ""),
        (r"\\[,!;: ]|~|\\q?quad(?![a-zA-Z])", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\\(l|g|n)e(?![a-zA-Z])", r"\\\1eq"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\{,\}", ","),
        (r"\u2212|\u2013", "-"),
    )
)
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|mathbf|textbf|textrm|operatorname) *\{([^{}]*)\}")
_NAME = re.compile(r"[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-z]\))? *(?:=(?!=)|\\in(?![a-z]))")
_UNIT = re.compile(
    r"(?P<number>-? ?[\d.,]*\d(?:/\d+)?|-?\\frac\{\d+\}\{\d+\}) +"
    r"(?!(?:and|or|pi|to)\b)[a-zA-Z]{2,}[a-zA-Z .]*(?:\^\{?\d\}?)?"
)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_FRAC = re.compile(r"\\frac *(\{[^{}]*\}|[0-9a-zA-Z]) *(\{[^{}]*\}|[0-9a-zA-Z])")
_ROOT = re.compile(r"\\sqrt *([0-9a-zA-Z])")
_ONE = re.compile(r"([_^])\{(\w)\}")
_AND = re.compile(r"(?:,? (?:and|or) )")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<mixed>\d+)?\\frac\{(?P<sign2>-?)(?P<over>\d+)\}\{(?P<below>\d+)\}"
    r"|(?P<top>\d+)/(?P<bottom>\d+)|(?P<plain>\d+\.?\d*|\.\d+))"
)
_BRACKETS = {"(": ")", "[": "]", "\\{": "\\}"}
_OPEN, _CLOSE = "([{", ")]}"


def same_result(answer: str, reference: str) -> bool:
    r"""Whether an answer gives the reference as its result.

    Args:
      answer: text; its result is in the last \boxed{...}; where there is none, what it announces
        ("the answer is ..."), or the last formula, or the last line.
      reference: the result alone, such as "\frac{1}{2}".
    """
    return any(same_latex(result, reference) for result in _results(answer))


def same_latex(first: str, second: str) -> bool:
    """Whether two results are the same by the rules of this module."""
    if max(len(first), len(second)) > _LONGEST:
        return first == second
    return _same(_plain(first), _plain(second))


def boxed(text: str) -> str | None:
    r"""What is in the last \boxed{...} whose braces are balanced; None: there is none.

    Takes time linear in the text.
    """
    closed = _closed_braces(text)
    for match in reversed(list(_BOX.finditer(text))):
        start = match.end()
        if text.startswith("{", start):
            if start in closed:
                return text[start + 1 : closed[start]]
        elif words := text[start : start + _LONGEST].split():
            return words[0].strip("$.") or None
    return None


def _closed_braces(text: str) -> dict[int, int]:
    """Where each brace that is opened is closed again."""
    opened: list[int] = []
    closed = {}
    for match in re.finditer("[{}]", text):
        if match.group() == "{":
            opened.append(match.start())
        elif opened:
            closed[opened.pop()] = match.start()
    return closed


def _results(answer: str) -> list[str]:
    """What may be meant as the result; without a box, a formula and the line that it stands in."""
    box = boxed(answer)
    if box is not None:
        return [box]
    lines = [line for line in answer.splitlines() if line.strip()]
    said = (announced(answer) or (lines[-1] if lines else ""))[-_LONGEST:]
    formulas = [next(filter(None, groups)) for groups in _MATH.findall(said)]
    return [said, *formulas[-1:]]


def _plain(text: str) -> str:
    """Rules 1 to 5."""
    for pattern, by in _CHANGES:
        text = pattern.sub(by, text)
    text = _WORDS.sub(r" \1 ", text).strip()
    text = _NAME.sub("", text, count=1) if _NAME.match(text) else text
    text = text.strip().rstrip(".").strip()
    unit = _UNIT.fullmatch(text)
    text = unit["number"] if unit else text
    text = _AND.sub(",", text)
    text = re.sub(r"\s+", "", text)
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    text = _FRAC.sub(_braced, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    return _ONE.sub(r"\1\2", text)


def _braced(fraction: re.Match[str]) -> str:
    over, below = (argument.strip("{}") for argument in fraction.groups())
    return f"\\frac{{{over}}}{{{below}}}"


def _same(first: str, second: str) -> bool:
    """Rules 6 to 8, of results without mark-up."""
    if first == second:
        return True
    numbers = _number(first), _number(second)
    if None not in numbers:
        return numbers[0] == numbers[1]
    letters = _word(first), _word(second)
    if letters[0] and letters[0] == letters[1]:
        return True
    (opens, parts, closes), (opens2, parts2, closes2) = _parts(first), _parts(second)
    if (opens, closes) != (opens2, closes2) or len(parts) != len(parts2):
        return False
    if not opens and len(parts) == 1:
        return False
    if opens in ("", "\\{"):
        return _same_in_any_order(parts, parts2)
    return all(map(_same, parts, parts2))


def _same_in_any_order(first: list[str], second: list[str]) -> bool:
    left = list(second)
    for part in first:
        found = next((other for other in left if _same(part, other)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _number(text: str) -> Fraction | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["plain"]:
        value = Fraction(match["plain"])
    else:
        over, below = match["over"] or match["top"], match["below"] or match["bottom"]
        if not int(below):
            return None
        value = Fraction(int(over), int(below)) + int(match["mixed"] or 0)
        value = -value if match["sign2"] else value
    return -value if match["sign"] == "-" else value


def _word(text: str) -> str:
    """A word or a letter in lower case, without brackets around it; "": it is none."""
    bare = text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text
    return bare.casefold() if bare.isalpha() and (len(bare) > 1 or bare.isupper()) else ""


def _parts(text: str) -> tuple[str, list[str], str]:
    """Opening bracket, parts between commas, closing bracket; brackets are "" where not around."""
    for opens in _BRACKETS:
        for closes in _BRACKETS.values():
            inner = text[len(opens) : -len(closes)]
            if text.startswith(opens) and text.endswith(closes) and _is_balanced(inner):
                return opens, _split(inner), closes
    return "", _split(text), ""


def _is_balanced(text: str) -> bool:
    level = 0
    for character in text:
        level += (character in _OPEN) - (character in _CLOSE)
        if level < 0:
            return False
    return level == 0


def _split(text: str) -> list[str]:
    """Parts between the commas that stand in no brackets."""
    parts, level = [""], 0
    for character in text:
        level += (character in _OPEN) - (character in _CLOSE)
        if character == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
