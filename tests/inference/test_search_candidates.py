"""A search tells from which answers it has chosen."""

import pytest

from stair_jax.data.records import Prompt
from stair_jax.inference.beam_search import beam_search
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import Rated, Scored, TestTimeSettings
from stair_jax.inference.dvts import dvts

SETTINGS = TestTimeSettings(n=5, width=3, successors=2, max_answer_tokens=400)
PROMPT = Prompt("p", "question?", "safety")


@pytest.mark.parametrize(("search", "most"), [(best_of_n, 5), (beam_search, 3), (dvts, 3)])
def test_the_chosen_answer_is_among_them_and_none_of_its_form_is_better(
    tokenizer, make_engine, search, most
):
    def score(candidates):
        return [Scored(float(sum(c.tokens) % 97)) for c in candidates]

    (result,) = search(make_engine(), tokenizer, [PROMPT], score, SETTINGS, seed=1)
    assert 0 < len(result.candidates) <= most
    assert Rated(result.tokens, result.score) in result.candidates
    output = tokenizer.tags.output_close
    whole = [each.score for each in result.candidates if each.tokens[-1] == output]
    assert not whole or result.score == max(whole)
