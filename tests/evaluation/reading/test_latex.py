r"""Which results are the same: the rules of the module, one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.reading.latex import boxed, same_latex, same_result

SAME = {
    "mark-up": [
        (r"$\left( 3, \frac{\pi}{2} \right)$", r"(3,\frac{\pi}{2})"),
        (r"\$32,\!348", "32348"),
        (r"50\%", "50"),
        (r"90^\circ", "90"),
        (r"45^{\circ}", "45"),
        (r"\text{Evelyn}", "evelyn"),
        ("7.", "7"),
        (r"\displaystyle x^2", "x^{2}"),
    ],
    "names": [
        (r"\dfrac{1}{3}", r"\tfrac13"),
        (r"x \le 3", r"x\leq3"),
        (r"\dbinom{4}{2}", r"\binom{4}{2}"),
    ],
    "braces": [(r"\frac12", r"\frac{1}{2}"), (r"\sqrt2", r"\sqrt{2}"), ("x^{2}+y_{1}", "x^2+y_1")],
    "before and behind": [
        ("x = 5", "5"),
        (r"x \in [-2,7]", "[-2,7]"),
        (r"10\text{ inches}", "10"),
        (r"12 \text{ cm}^2", "12"),
        ("f(x) = x^2", "x^2"),
    ],
    "thousands": [("1,234,567", "1234567"), ("1{,}234", "1234"), ("-12,000.5", "-12000.5")],
    "numbers": [
        ("0.5", ".5"),
        ("1/2", r"\frac{1}{2}"),
        ("0.50", r"\frac12"),
        (r"1\frac{1}{2}", "1.5"),
        (r"-\frac{2}{4}", "-0.5"),
        (r"\frac{-1}{2}", "-1/2"),
        ("+3", "3.0"),
    ],
    "lists": [
        ("1, -2", "-2,1"),
        ("1 and 2", "2, 1"),
        (r"\{1, 2\}", r"\lbrace 2,1 \rbrace"),
        (r"(1, \frac12)", "(1,0.5)"),
        (r"x = 3 \text{ or } 4", "4,3"),
    ],
    "words": [(r"\text{(A)}", "A"), ("(B)", "B"), ("\\text{even}", "Even")],
}  # fmt: skip
DIFFERENT = [
    ("1", "2"), ("-1", "1"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2]", "(1,2)"),
    ("1,2", "1"), ("1,1", "1"), ("(1,234)", "1234"), ("x+1", "1+x"), (r"2\sqrt{2}", r"\sqrt{8}"),
    ("3x", "3"), ("3 pi", "3"), (r"3\pi", "3"), ("a", "A"), ("", "0"), (r"\frac{1}{0}", "1"),
    ("12", "1,2"), ("even", "odd"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [pair for pairs in SAME.values() for pair in pairs])
def test_results_are_the_same_by_the_rules(first, second):
    assert same_latex(first, second) and same_latex(second, first)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_results_that_differ_are_not_the_same(first, second):
    assert not same_latex(first, second) and not same_latex(second, first)


@given(st.text("0123456789abxy\\{}()[],.+-^_/$ frcsqt", max_size=30))
def test_any_result_is_the_same_as_itself_and_spaces_do_not_count(text):
    assert same_latex(text, text)
    assert same_latex(text, f" {text} ")


@given(st.integers(-(10**6), 10**6), st.integers(1, 1000), st.integers(1, 9))
def test_fractions_are_the_same_reduced_or_not(over, below, times):
    sign = "-" if over < 0 else ""
    long = rf"{sign}\frac{{{abs(over) * times}}}{{{below * times}}}"
    assert same_latex(long, f"{over}/{below}")
    assert not same_latex(long, f"{over + 1}/{below}")


@given(st.lists(st.integers(0, 5), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_sets_have_no_order_and_tuples_have(numbers, draw):
    other = list(numbers)
    draw.shuffle(other)
    first, second = (", ".join(map(str, items)) for items in (numbers, other))
    assert same_latex(rf"\{{{first}\}}", rf"\{{{second}\}}")
    assert same_latex(f"({first})", f"({second})") == (numbers == other)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed 7 $", "7"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\fbox{3}", "3"),
        ("none", None),
        (r"\boxed{", None),
    ],
)
def test_the_last_complete_box_counts(text, inside):
    assert boxed(text) == inside


@pytest.mark.parametrize("text", ["\\boxed{", "\\boxed ", "\\( ", "$a", "{", "\\frac", "1,"])
def test_long_answers_are_read_in_a_single_pass(text):
    # with a search that goes back for each of them, these take hours
    assert not same_result(text * 100_000, "17")


@pytest.mark.parametrize(
    "answer",
    [
        r"First 3, so \boxed{\frac{1}{2}}",
        "The answer is 1/2.",
        r"We get $x = \frac12$.",
        "Long.\n0.5",
        r"The final answer is: $\frac{1}{2}$. I hope it is right.",
    ],
)
def test_the_result_is_found_in_an_answer(answer):
    assert same_result(answer, r"\frac{1}{2}")


@pytest.mark.parametrize("answer", ["", r"1/2, no: \boxed{2}", "It is 1/2 or 2", "half"])
def test_another_result_is_wrong(answer):
    assert not same_result(answer, r"\frac{1}{2}")
