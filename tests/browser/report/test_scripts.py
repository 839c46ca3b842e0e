"""Functions of the page's scripts against what can be said of them by hand or by rule."""

import difflib
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from stair_jax.reports.html import page as page_module

ASSETS = Path(page_module.__file__).with_name("assets")


@pytest.fixture
def call(browser):
    """`call(expression, argument)`: a function of the scripts, applied in an empty page."""
    page = browser.new_page()
    names = (ASSETS / "order.txt").read_text().split()
    texts = [(ASSETS / name).read_text() for name in names if name.endswith(".js")]
    scripts = "\n".join(texts[:-1])  # the last one starts the page

    def call(function, argument=None):
        return page.evaluate(
            f"(argument) => {{ {scripts}\n return ({function})(argument); }}", argument
        )

    yield call
    page.close()


def test_a_diff_gives_back_both_texts_and_marks_what_is_not_common(call):
    draw = random.Random(0)
    words = ["tea", "is", "a", "poison", ".", "\n", "fine"]
    pairs = [[" ".join(draw.choices(words, k=draw.randrange(12))) for _ in "ab"] for _ in range(40)]
    found = call("(pairs) => pairs.map((pair) => diffOf(...pair))", pairs)
    for (left, right), sides in zip(pairs, found, strict=True):
        assert ["".join(text for text, _ in side) for side in sides] == [left, right]
        common = ["".join(text for text, is_own in side if not is_own) for side in sides]
        assert common[0] == common[1]


def test_a_diff_marks_as_little_as_the_longest_common_subsequence_allows(call):
    left, right = "a b c d e f", "a x c d y f"
    sides = call("(pair) => diffOf(...pair)", [left, right])
    own = [[text for text, is_own in side if is_own] for side in sides]
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    assert own == [["b", "e"], ["x", "y"]]
    assert sum(len(text) for text in own[0]) == len(left) - sum(block.size for block in blocks)


def test_rows_of_a_column_are_apart_and_parents_stand_amid_their_children(call):
    draw = random.Random(1)
    parents = [-1, *(draw.randrange(max(0, node - 20), node) for node in range(1, 400))]
    size = len(parents)
    record = {
        "nodes": {
            "parent": parents, "text": [""] * size, "value": [0] * size, "visits": [1] * size
        },
        "pairs": [],
    }  # fmt: skip
    found = call(
        """(record) => {
          const { row, columns } = layoutOf(new Tree(record));
          return { row: [...row], columns };
        }""",
        record,
    )
    row = found["row"]
    assert sorted(node for column in found["columns"] for node in column) == list(range(size))
    for column in found["columns"]:
        gaps = [row[below] - row[above] for above, below in pairwise(column)]
        assert all(gap >= 1 - 1e-9 for gap in gaps)
    for node in range(size):
        below = [row[child] for child in range(size) if parents[child] == node]
        if below:
            assert row[node] == pytest.approx((below[0] + below[-1]) / 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"), (1234567, "1\u202f234\u202f567"), (-2.5, "\u22122.5"),
        (0.0001, "1e\u22124"),
        (None, "\u2013"), (12.0, "12"), (99.96, "100"),
    ],
)  # fmt: skip
def test_a_figure_has_three_digits(call, value, text):
    assert call("(value) => figure(value)", value) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "<|Reasoning_step|>Title: Risk\nit is fine .\n<|/Reasoning_step|>",
            ["step", "Risk", "it is fine ."],
        ),
        ("\n\n<|Output|>Final Answer: no .<|/Output|>", ["output", "Final answer", "no ."]),
        ("<|Output|>a<|/Reasoning_step|>", ["raw", "", "<|Output|>a<|/Reasoning_step|>"]),
        (
            "<|Reasoning_step|>Title: a<|Output|>b",
            ["raw", "", "<|Reasoning_step|>Title: a<|Output|>b"],
        ),
        ("plain", ["raw", "", "plain"]),
    ],
)  # fmt: skip
def test_a_step_is_read_by_its_tags_where_they_are_whole(call, text, found):
    step = call("(text) => stepOf(text)", text)
    assert [step["kind"], step["title"], step["body"]] == found


def test_an_answer_is_split_into_its_steps_or_stays_whole(call):
    steps = ["<|Reasoning_step|>Title: a\nb<|/Reasoning_step|>", "<|Output|>c<|/Output|>"]
    assert call("(text) => splitSteps(text)", "\n\n".join(steps)) == steps
    for whole in ("plain text", f"said before {steps[0]}"):
        assert call("(text) => splitSteps(text)", whole) == [whole]


def test_a_place_comes_back_from_its_address(call):
    place = {"path": ["tree", "0", "a/b?c#d", "\u202e %"], "query": {"q": "x&y=z", "node": "3"}}
    assert call("(place) => placeOf(hrefOf(place))", place) == place


def test_assets_ask_for_nothing_and_run_no_text():
    texts = {path: path.read_text() for path in ASSETS.rglob("*.*s") if "vendor" not in path.parts}
    assert len(texts) > 30
    for path, text in texts.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text
        ), path
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path


def test_each_file_of_the_page_is_in_its_order_and_short():
    names = (ASSETS / "order.txt").read_text().split()
    there = {
        str(path.relative_to(ASSETS))
        for path in ASSETS.rglob("*")
        if path.suffix in (".js", ".css")
    }
    assert set(names) == there
    assert len(names) == len(there)
    for name in there - {"vendor/d3-hierarchy.min.js"}:
        assert len((ASSETS / name).read_text().splitlines()) <= 300, name
