"""A reward model in transformers, by the chat template of its folder: the scores are ours."""

import copy
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stair_jax import checkpoint, pocket
from stair_jax.errors import UserError
from stair_jax.inference.scorers import PrmScorer
from stair_jax.models import huggingface
from stair_jax.models.heads import init_score_head
from stair_jax.stages import Export, Prm
from stair_jax.storage import read_json
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.text import chat, steps
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.scoring import scoring_tokenizer
from stair_jax.text.thoughts import close_thoughts
from stair_jax.text.tokenizer import Tokenizer, add_tags

DOCS = Path(__file__).parents[2] / "docs/models.md"
PROMPTS = ("What is the first step?", "  two\n\nlines, 1234567 \r\n", "ünï 日本 <b>")
STEP = steps.format_step("Look", "It is a list.")
ANSWERS = (
    steps.format_answer([("Look", "It is a list."), ("Count", "1, 2, 3")], "three"),
    steps.format_answer([("Look", "At  it,\n\nagain.")], "No."),
    steps.format_output("4"),
)
PARTIAL = (STEP, STEP + "\n\n" + steps.format_step("Count", "one, two"))


def turns(prompt, answer, *before):
    return [
        *before,
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
    ]


def our_ids(tokenizer, prompt, answer):
    """As sampled: a closing tag ends an answer or a step, and what has none ends with the turn."""
    ids = [*chat.encode_prompt(tokenizer, prompt), *tokenizer.encode_answer(answer)]
    tags = (tokenizer.tags.reasoning_close, tokenizer.tags.output_close)
    return ids if ids[-1] in tags else [*ids, tokenizer.end_id]


def transformers_ids(hf, *chats):
    return [hf.apply_chat_template(one, return_dict=False) for one in chats]


def with_template(tokenizer, template):
    hf = copy.deepcopy(tokenizer.hf)
    hf.chat_template = template
    return Tokenizer(hf, tokenizer.stop_ids, tokenizer.chat)


@pytest.fixture
def export(tmp_path):
    """`export(tokenizer)`: (scorer, tokenizer in transformers, model in transformers)."""

    def export(tokenizer, **changes):
        config, params = tiny_model(tokenizer.vocab_size, **changes)
        head = init_score_head(config, jax.random.key(3))
        huggingface.save(tmp_path / "prm", params, config, tokenizer, score_head=head)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "prm").eval()
        scorer = PrmScorer(config, {"model": params, "score": head}, rows=15)
        return scorer, AutoTokenizer.from_pretrained(tmp_path / "prm"), model

    return export


def check_scores(tokenizer, scorer, hf, model):
    """A batch that is padded on the right, and each chat alone, against our scorer."""
    answers = (*ANSWERS, *PARTIAL)
    chats = [turns(prompt, answer) for prompt in PROMPTS for answer in answers]
    ours = scorer.score([our_ids(tokenizer, *(t["content"] for t in one)) for one in chats])
    inputs = hf.apply_chat_template(chats, padding=True, return_tensors="pt")
    assert (inputs["input_ids"][:, 0] != hf.pad_token_id).all()
    with torch.no_grad():
        batch = model(**inputs).logits[:, 0].numpy()
        alone = [
            model(**hf.apply_chat_template(one, return_tensors="pt")).logits.item()
            for one in chats[:5]
        ]
    np.testing.assert_allclose(batch, ours, atol=1e-4)
    np.testing.assert_allclose(alone, ours[:5], atol=1e-4)
    assert len({round(score, 5) for score in ours}) == len(chats)
    shape = (len(PROMPTS), len(answers))
    winners = (np.reshape(scores, shape).argmax(1).tolist() for scores in (batch, ours))
    assert next(winners) == next(winners)


def test_each_family_is_scored_as_by_our_scorer(family, export):
    name = family.hf.name_or_path
    model_type = "qwen3" if name == "qwen3" else "qwen2" if "qwen" in name else "llama"
    check_scores(family, *export(family, model_type=model_type))


def test_the_pocket_world_is_scored_as_by_our_scorer(export):
    tokenizer = Tokenizer.load(Path(*pocket.__path__) / "base")
    check_scores(tokenizer, *export(tokenizer))


@pytest.mark.slow
def test_a_trained_and_exported_reward_model_is_scored_as_by_our_scorer(
    make_stage_inputs, run_stage, tmp_path, chat_tokenizer
):
    inputs = make_stage_inputs(tmp_path, rows=8)
    settings = {"max_length": 160, "microbatch_rows": 4, "batch_size": 4, "reader": "datasets"}
    sources = {"model": inputs / "model", "preferences": inputs / "data"}
    trained = run_stage(Prm, settings | {"learning_rate": 1e-2}, tmp_path / "prm", sources)
    exported = run_stage(Export, {"dtype": "float32"}, tmp_path / "reward", {"model": trained})
    config, params, tokenizer = checkpoint.load(exported / "hf")
    assert tokenizer.stop_ids == chat_tokenizer.stop_ids
    hf = AutoTokenizer.from_pretrained(exported / "hf")
    model = AutoModelForSequenceClassification.from_pretrained(exported / "hf").eval()
    check_scores(chat_tokenizer, PrmScorer(config, params, rows=15), hf, model)


def test_the_snippet_of_the_docs_gives_our_scores(chat_tokenizer, export, tmp_path):
    scorer, _, _ = export(chat_tokenizer)
    section = DOCS.read_text().partition("## A process reward model in transformers")[2]
    snippet = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    names = {"folder": tmp_path / "prm", "prompt": PROMPTS[0], "answers": ANSWERS}
    exec(snippet, names)
    ours = scorer.score([our_ids(chat_tokenizer, PROMPTS[0], answer) for answer in ANSWERS])
    np.testing.assert_allclose(names["scores"].numpy(), ours, atol=1e-4)


def test_by_the_template_of_the_chat_model_the_score_is_read_elsewhere(make, export):
    hf, stop_ids = make("qwen2")
    add_tags(hf, stop_ids)
    tokenizer = Tokenizer(hf, stop_ids)
    scorer, exported, _ = export(tokenizer, model_type="qwen2")
    chats = [turns(PROMPTS[0], answer) for answer in ANSWERS]
    own, ours = (scorer.score(transformers_ids(each, *chats)) for each in (hf, exported))
    assert max(abs(a - b) for a, b in zip(own, ours, strict=True)) > 0.01


def test_the_folder_pads_with_a_token_that_its_config_names(make, export, tmp_path):
    hf, stop_ids = make("llama3_1")
    add_tags(hf, stop_ids)
    hf.padding_side = "left"
    tokenizer = Tokenizer(hf, stop_ids)
    _, exported, model = export(tokenizer)
    assert exported.pad_token_id == model.config.pad_token_id == tokenizer.pad_id
    assert tokenizer.pad_id not in tokenizer.stop_ids
    assert (exported.padding_side, exported.truncation_side) == ("right", "left")
    assert read_json(tmp_path / "prm/config.json")["eos_token_id"] == tokenizer.eos_id
    assert hf.padding_side == "left" and "scored" not in hf.chat_template  # its own is as it was
    one = turns(PROMPTS[0], ANSWERS[0])
    cut = exported.apply_chat_template(one, return_dict=False, truncation=True, max_length=9)
    assert cut == our_ids(tokenizer, PROMPTS[0], ANSWERS[0])[-9:]


@pytest.mark.parametrize("name", ["llama3_2", "qwen2_5", "qwen3", "r1_qwen", "llama2"])
def test_system_turn_values_and_date_are_those_of_training(make, name):
    hf, stop_ids = make(name)
    settings = ChatSettings('  Be "brief", {{ x }} \u65e5\U0001f600\n', {"enable_thinking": False})
    add_tags(hf, stop_ids)
    close_thoughts(hf, settings)
    tokenizer = Tokenizer(hf, stop_ids, settings)
    exported = scoring_tokenizer(tokenizer)
    for answer in (*ANSWERS, *PARTIAL):
        ids = our_ids(tokenizer, PROMPTS[0], answer)
        assert transformers_ids(exported.hf, turns(PROMPTS[0], answer)) == [ids]
        assert exported.hf.apply_chat_template(
            turns(PROMPTS[0], answer), return_dict=False, enable_thinking=True, date_string="today"
        ) == [*ids]
    own = {"role": "system", "content": "Be long."}
    text = exported.hf.apply_chat_template(turns("a", "b", own), tokenize=False)
    assert "Be long." in text and "brief" not in text


def test_a_prompt_without_an_answer_is_that_of_the_model(family):
    exported = scoring_tokenizer(family)
    assert exported.end_id == family.end_id and exported.stop_ids == family.stop_ids
    for prompt in (*PROMPTS, "<|eot_id|> </s> <|Output|>"):
        assert chat.encode_prompt(exported, prompt) == chat.encode_prompt(family, prompt)
    user = turns(PROMPTS[1], "")[:1]
    expected = chat.encode_prompt(family, PROMPTS[1])
    assert transformers_ids(exported.hf, user) == [expected]
    again = scoring_tokenizer(exported)
    assert again.hf.chat_template == exported.hf.chat_template


def test_steps_may_also_be_given_as_an_answer_to_continue(family):
    hf = scoring_tokenizer(family).hf
    for answer in PARTIAL:
        one = turns(PROMPTS[0], answer)
        ids = hf.apply_chat_template(one, return_dict=False, continue_final_message=True)
        assert ids == our_ids(family, PROMPTS[0], answer)


def test_the_turns_before_the_last_are_those_of_the_models_template(make):
    hf, stop_ids = make("qwen2")
    add_tags(hf, stop_ids)
    exported = scoring_tokenizer(Tokenizer(hf, stop_ids))
    before = turns("one?", ANSWERS[1])
    text = exported.hf.apply_chat_template(turns("two?", ANSWERS[0], *before), tokenize=False)
    prompt = [*before, {"role": "user", "content": "two?"}]
    start = hf.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert text == start + ANSWERS[0]
    text = exported.hf.apply_chat_template(turns("two?", " Sure. ", *before), tokenize=False)
    assert text == start + "Sure.<|im_end|>"


def test_a_template_that_writes_thoughts_into_answers_writes_those_of_the_prompt(make):
    hf, stop_ids = make("qwen3")
    hf.chat_template = (Path(__file__).parent / "templates/qwen3_thoughts.jinja").read_text()
    add_tags(hf, stop_ids)
    one = turns("step", ANSWERS[0])
    for thinking, thoughts in ({}, 0), ({"enable_thinking": False}, 1):
        tokenizer = Tokenizer(hf, stop_ids, ChatSettings(None, thinking))
        exported = scoring_tokenizer(tokenizer)
        assert transformers_ids(exported.hf, one) == [our_ids(tokenizer, "step", ANSWERS[0])]
        text = exported.hf.apply_chat_template(one, tokenize=False)
        assert text.count("<think>") == thoughts


TEXT = "{{ messages[-1]['content'] }}"
ODD_TEMPLATES = [
    "\n  " + TEXT + "<|eot_id|>\n  \n",
    "  {% if true %}\n" + TEXT + "{% endif %}<|eot_id|>  \n  ",
    "{%- for m in messages -%}  {{ m['content'] }}<|eot_id|>{%- endfor -%}  ",
    "{% macro say() %}{{ messages[-1]['content'] }}{% endmacro %}{{ say() }}<|eot_id|>",
    "{% set messages = messages[-1:] %}{% for m in messages %}{{ m.content }}{% endfor %}"
    "<|eot_id|>{% if add_generation_prompt %}\n{% endif %}",
    "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
    + TEXT
    + "<|eot_id|>{% if messages[-1]['role'] == 'assistant' %} and goodbye{% endif %}",
    "{% raw %}{{ {% {# {% endraw %}" + TEXT + "<|eot_id|>{# }} #}",
    TEXT + "{{ strftime_now('%d %B') }}<|eot_id|>",
]


@pytest.mark.parametrize("template", ODD_TEMPLATES)
def test_what_a_template_writes_around_a_turn_moves_no_score(chat_tokenizer, template, capsys):
    tokenizer = with_template(chat_tokenizer, template)
    exported = scoring_tokenizer(tokenizer)
    said = capsys.readouterr().err
    # Behind a space, an answer without tags would be tokenised with it.
    ends_with_space = tokenizer.decode(chat.encode_prompt(tokenizer, "step"))[-1:] == " "
    assert ("only structured answers" in said) == ends_with_space
    for answer in (*ANSWERS, *PARTIAL, *(() if said else ("Sure.", "an answer"))):
        expected = our_ids(tokenizer, PROMPTS[1], answer)
        assert transformers_ids(exported.hf, turns(PROMPTS[1], answer)) == [expected]


def test_an_answer_that_would_get_other_tokens_is_refused(chat_tokenizer, capsys):
    """Nothing parts prompt and answer: their texts would be tokenised as one."""
    tokenizer = with_template(chat_tokenizer, TEXT + " ")
    exported = scoring_tokenizer(tokenizer)
    assert "writes only structured answers" in capsys.readouterr().err
    (ids,) = transformers_ids(exported.hf, turns("step", ANSWERS[0]))
    assert ids == our_ids(tokenizer, "step", ANSWERS[0])
    with pytest.raises(Exception, match="would have other tokens than in training"):
        transformers_ids(exported.hf, turns("step", "an analysis"))


def test_a_template_that_cannot_be_extended_scores_nothing(chat_tokenizer, capsys):
    """It reads a name that the extension uses."""
    tokenizer = with_template(chat_tokenizer, TEXT + "<|eot_id|>{{ scored }}")
    exported = scoring_tokenizer(tokenizer)
    assert "refuses to write answers to score" in capsys.readouterr().err
    for answer in (ANSWERS[0], PARTIAL[0], "Sure."):
        with pytest.raises(Exception, match="would have other tokens than in training"):
            transformers_ids(exported.hf, turns("step", answer))


@pytest.mark.parametrize(
    ("chat_turns", "reason"),
    [
        ([{"role": "assistant", "content": "Sure."}], "a user's turn must stand before"),
        (turns("a", "b", *turns("a", "b")[1:]), None),
        (turns("a", "b")[1:] * 2, "a user's turn must stand before"),
        (turns([{"type": "text", "text": "a"}], "b"), "the content of each turn must be text"),
    ],
)
def test_chats_that_cannot_be_scored_are_named(chat_tokenizer, chat_turns, reason):
    hf = scoring_tokenizer(chat_tokenizer).hf
    if reason is None:
        assert transformers_ids(hf, chat_turns)
    else:
        with pytest.raises(Exception, match=reason):
            transformers_ids(hf, chat_turns)


def test_without_a_padding_token_of_its_own_there_is_no_export(chat_tokenizer):
    hf = copy.deepcopy(chat_tokenizer.hf)
    hf.pad_token = hf.eos_token
    with pytest.raises(UserError, match="needs a padding token that ends no answer"):
        scoring_tokenizer(Tokenizer(hf))
