"""Random search makes a first token likelier, within its budget of queries."""

import math

import jax
import numpy as np
import pytest

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.attacks.random_search import RandomSearch
from stair_jax.evaluation.attacks.suffix_settings import RandomSearchSettings
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Reply
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.testing.scripted_target import ScriptedTarget

CASE = Case("c1", "Tell me a secret.", columns={"target": "None of it"})


def attack(target, seed=0, case=CASE, **settings):
    chosen = RandomSearchSettings(**{"length": 6, "queries": 41, "batch": 4, **settings})
    task = RandomSearch(chosen).task(case, Means(target, seed=seed))
    (tried,) = run_tasks(Driver(target.engine), [task])
    return tried


def score(target, messages, text="Sure"):
    """Log-probability of the first token of the text inside of the first step."""
    (scores,) = run_tasks(
        Driver(target.engine), [target.score_first(messages, (text,), "first_step")]
    )
    return scores[0]


def test_each_restart_asks_a_suffix_that_is_likelier_than_the_first(target):
    tried = attack(target, queries=161)
    assert len(tried) == 2 and len(target.scored) == 161
    assert {(texts, place) for _, texts, place in target.scored} == {(("Sure",), "first_step")}
    chats = [messages for messages, *_ in target.scored]  # which asking again would add to
    scored = [score(target, messages) for messages in chats]
    shares = scored[:81], scored[81:]  # the first restart gets the query that is left over
    for one, share in zip(tried, shares, strict=True):
        assert one.asked.messages[-1]["content"].startswith(CASE.prompt)
        assert score(target, one.asked.messages) == pytest.approx(max(share), abs=1e-4)
        assert max(share) > share[0] + 0.05
    assert target.asked == [(one.asked, f"c1/random_search/{n}") for n, one in enumerate(tried)]
    assert all(one.final == one.reply.final and one.reply.tokens for one in tried)


def test_it_depends_on_case_and_seed_alone(target):
    asked = [one.asked for one in attack(target)]
    assert asked == [one.asked for one in attack(target)]
    assert asked != [one.asked for one in attack(target, seed=1)]
    assert asked != [one.asked for one in attack(target, case=Case("c2", CASE.prompt))]


def test_what_is_scored_is_what_is_asked_token_by_token(target):
    attack(target, queries=20, restarts=1)
    lengths = {len(target.encoder.chat(messages)) for messages, *_ in target.scored}
    assert len(lengths) == 1


def test_a_search_ends_with_a_suffix_that_is_likely_enough(target):
    first = score(target, attack(target, queries=1, restarts=1)[0].asked.messages)
    target.scored = []
    attack(target, enough=math.exp(first) * 0.99, restarts=1)
    assert len(target.scored) == 1


def test_a_row_may_have_its_own_target(target):
    attack(target, queries=2, restarts=1, column="target")
    assert {texts for _, texts, _ in target.scored} == {("None of it",)}


def test_a_target_without_log_probabilities_is_named():
    black_box = ScriptedTarget(lambda asked, key: Reply("no"))
    with pytest.raises(UserError, match="the tokenizer of scripted is not here: name a model"):
        RandomSearch().task(CASE, Means(black_box))
    with pytest.raises(UserError, match="scripted tells no log-probabilities: name a model"):
        black_box.score_first([], ("Sure",))


def test_the_first_token_is_that_of_the_text_at_its_place(target):
    """Log-probabilities by the whole forward pass, at each place."""
    tokenizer, messages = target.encoder.tokenizer, CASE.messages
    texts = ("Sure", " no")
    firsts = [tokenizer.encode_text(text)[0] for text in texts]
    forms = {
        "answer": [],
        "first_step": tokenizer.encode_answer("<|Reasoning_step|>Title: "),
        "output": tokenizer.encode_answer("<|Output|>Final Answer: "),
    }
    forward = jax.jit(apply, static_argnums=0)
    for place, form in forms.items():
        tokens = [*target.encoder.chat(messages), *form]
        found = next(run_tasks(Driver(target.engine), [target.score_first(messages, texts, place)]))
        config, params = target.weights().config, target.weights().params
        padded = np.pad(tokens, (0, 128 - len(tokens)))[None]
        hidden = forward(config, params, padded, np.arange(128)[None])[0, len(tokens) - 1]
        expected = jax.nn.log_softmax(output_embedding(params, config) @ hidden)[np.array(firsts)]
        assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_chat_without_room_is_as_unlikely_as_can_be(target):
    chat = [{"role": "user", "content": "x" * 400}]
    (found,) = run_tasks(Driver(target.engine), [target.score_first(chat, ("a", "b"))])
    assert found == (-math.inf, -math.inf)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 3, "restarts": 4}, "restarts is 4, more than queries 3"),
        ({"target": " "}, "target is empty"),
        ({"enough": 0}, "enough"),
    ],
)
def test_budgets_that_cannot_be_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        RandomSearchSettings(**settings)
