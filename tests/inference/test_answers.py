"""One kind of answer for all methods; `conftest.py` checks that no handle is left."""

import pytest

from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.inference.answers import Answering
from stair_jax.inference.candidates import Scored, TestTimeSettings
from stair_jax.inference.kept_prefix import KeptPrefix
from stair_jax.inference.methods import METHODS, is_search, parse_method
from stair_jax.inference.scoring import FunctionScorer
from stair_jax.text.chat import encode_prompt

PROMPTS = [Prompt(f"p{i}", f"question {i}?", "safety") for i in range(3)]
SETTINGS = TestTimeSettings(n=3, successors=2, width=2)
LONGEST = FunctionScorer(lambda group: [Scored(float(len(each.tokens))) for each in group])


@pytest.fixture
def ask(tokenizer, make_engine):
    """`ask(method, ...)`: the answers to PROMPTS, and the engine."""

    def ask(method, scorer=LONGEST, seed=0, max_length=2**40):
        engine = make_engine()
        engine.max_length = max_length
        answering = Answering(engine, tokenizer, SETTINGS, seed, max_length)
        tasks = [
            answering.task(method, prompt, encode_prompt(tokenizer, prompt.prompt), scorer)
            for prompt in PROMPTS
        ]
        return list(run_tasks(Driver(engine), tasks)), engine

    return ask


@pytest.mark.parametrize(
    "method", [*(name for name in METHODS if "self" not in name), "best_of_n:5", "dvts:3x2"]
)
def test_each_method_gives_answers_with_their_cost(ask, tokenizer, method):
    answers, engine = ask(method)
    assert sum(answer.generated_tokens for answer in answers) == engine.stats.generated
    for answer, prompt in zip(answers, PROMPTS, strict=True):
        assert answer.text == tokenizer.decode(answer.tokens) and answer.finish == "stop"
        assert answer.prompt_tokens == len(encode_prompt(tokenizer, prompt.prompt))
        assert answer.score == (float(len(answer.tokens)) if is_search(method) else None)
    requests = [request for request in engine.seen if request.sampling]
    assert all((request.sampling.temperature == 0) == (method == "greedy") for request in requests)
    if method.startswith("best_of_n"):
        wanted = parse_method(method).num_candidates(SETTINGS)
        assert len(requests) == len(PROMPTS) * wanted and wanted in (3, 5)


def test_samples_depend_on_the_seed_and_the_prompts_id(ask):
    first, again, other = (ask("sample", seed=seed)[0] for seed in (0, 0, 1))
    assert first == again != other


def test_a_search_without_scores_says_so(ask):
    nothing = FunctionScorer(lambda group: [Scored(float("nan")) for _ in group])
    answers, _ = ask("best_of_n", nothing)
    assert [(answer.score, answer.unscored) for answer in answers] == [(None, 3)] * 3


@pytest.mark.parametrize("method", ["greedy", "best_of_n"])
def test_a_prompt_that_fills_the_context_is_told_from_an_answer_that_is_cut(ask, method):
    length = ask(method)[0][0].prompt_tokens
    assert {answer.finish for answer in ask(method, max_length=length)[0]} == {"too_long"}
    answers, _ = ask(method, max_length=length + 2)
    assert {answer.finish for answer in answers} == {"length"}
    assert all(len(answer.tokens) == 2 for answer in answers)


def test_what_is_kept_of_a_chat_is_what_the_next_prompt_begins_with(tokenizer, make_engine):
    engine = make_engine()
    answering, driver = Answering(engine, tokenizer, SETTINGS, 0, 2**40), Driver(engine)
    prefix, tokens, shared = KeptPrefix(engine), encode_prompt(tokenizer, "hello"), []
    for turn in range(4):
        parent = prefix.take(tokens)
        shared.append(len(parent.tokens) if parent else 0)
        assert parent is None or list(parent.tokens) == tokens[: len(parent.tokens)]
        task = answering.task("greedy", PROMPTS[0], tokens, parent=parent, keep=True)
        (answer,) = run_tasks(driver, [task])
        assert engine.seen[-1].sequence == tuple(tokens)
        prefix.put(answer.handle)
        assert engine.handles == {answer.handle}
        # Turn 2 goes on from the whole answer; turn 3 leaves out all but its first two tokens.
        answered = [*tokens, *answer.tokens]
        tokens = [*answered, 7] if turn == 0 else [*answered[: len(tokens) + 2], 8]
    assert shared[0] == 0 and shared[1] == len(engine.seen[1].sequence) - 1
    assert shared[2] == len(engine.seen[1].sequence) + 2
    assert prefix.take([1, 2]) is None and not engine.handles
    prefix.drop()
