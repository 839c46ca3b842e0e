"""Names of methods, with and without a size."""

import pytest

from stair_jax.errors import UserError
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import METHODS, SEARCHES, Method, is_search, parse_method
from stair_jax.run.answer_models import AnswerSettings

SETTINGS = TestTimeSettings(n=8, width=2, successors=4)


@pytest.mark.parametrize(
    ("text", "method", "candidates"),
    [
        ("greedy", Method("greedy"), 1),
        ("sample", Method("sample"), 1),
        ("best_of_n", Method("best_of_n"), 8),
        ("best_of_n:16", Method("best_of_n", (16,)), 16),
        ("best_of_n_self_reward:3", Method("best_of_n_self_reward", (3,)), 3),
        ("beam_search", Method("beam_search"), 8),
        ("beam_search:4x5", Method("beam_search", (4, 5)), 20),
        ("beam_search_self_reward:1x65536", Method("beam_search_self_reward", (1, 65536)), 65536),
        ("dvts:3x2", Method("dvts", (3, 2)), 6),
    ],
)
def test_a_name_says_the_method_and_its_size(text, method, candidates):
    found = parse_method(text)
    assert found == method and str(found) == text
    assert found.num_candidates(SETTINGS) == candidates
    assert is_search(text) == found.is_search == (text not in ("greedy", "sample"))
    assert found.is_self_rewarded == ("self_reward" in text)
    assert found.is_guided == (found.is_search and not found.is_self_rewarded)


def test_a_size_goes_before_that_of_the_settings_and_changes_nothing_else():
    own = AnswerSettings(n=8, width=2, successors=4, temperature=0.9)
    assert parse_method("best_of_n").settings(own) is own
    best, beam = (parse_method(name).settings(own) for name in ("best_of_n:5", "dvts:3x6"))
    assert (best.n, best.width, best.successors, best.temperature) == (5, 2, 4, 0.9)
    assert (beam.n, beam.width, beam.successors, beam.temperature) == (8, 3, 6, 0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beam", "method is 'beam': it must be one of 'greedy', 'sample', 'best_of_n'"),
        ("best_of_m:4", "did you mean 'best_of_n'"),
        ("", "method is '': it must be one of"),
        ("greedy:2", "method is 'greedy:2': greedy samples one answer, and has no size"),
        ("best_of_n:", "write best_of_n:N in whole numbers from 1 to 65536, such as best_of_n:16"),
        ("best_of_n:0", "write best_of_n:N"),
        ("best_of_n:016", "write best_of_n:N"),
        ("best_of_n:65537", "write best_of_n:N"),
        ("best_of_n:" + "9" * 5000, "write best_of_n:N"),
        ("best_of_n:4x4", "write best_of_n:N"),
        ("best_of_n:\u0664", "write best_of_n:N"),
        ("best_of_n:4\n", "write best_of_n:N"),
        ("best_of_n:4_self_reward", "write best_of_n:N"),
        ("beam_search:4", "write beam_search:WIDTHxSUCCESSORS in whole .* beam_search:4x4"),
        ("dvts_self_reward:4x", "write dvts_self_reward:WIDTHxSUCCESSORS"),
    ],
)
def test_a_wrong_name_or_size_is_one_line(text, said):
    with pytest.raises(UserError, match=said):
        AnswerSettings(method=text)


def test_where_only_searches_are_wanted_others_are_refused():
    with pytest.raises(UserError, match="methods is 'greedy': it must be one of 'best_of_n'"):
        parse_method("greedy", "methods", SEARCHES)
    assert {*METHODS} == {"greedy", "sample", *SEARCHES}
