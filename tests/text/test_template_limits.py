"""Chat templates in a process of their own: as in transformers, and within limits."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from stair_jax import pocket
from stair_jax.errors import UserError
from stair_jax.text import template_limits
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.template_limits import TemplateError, render_within_limits

POCKET = Path(*pocket.__path__) / "base"
TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
TURNS = [
    {"role": "system", "content": "be\ngood "},
    {"role": "user", "content": " <b>tell me</b> {{ 1 }} \ue000 \U0001f600 \ud83d"},
]
OTHERS = {
    "tojson": "{{ messages | tojson(indent=1) }}{{ dict(a=1) | tojson }}",
    "namespace": "{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}{{ bos_token }}",
    "generation": "{% generation %}{{ messages[0].content }}{% endgeneration %}|",
    "loops": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}"
    "{% endfor %}\n  {% if tools is none and add_generation_prompt %}\n x{% endif %}",
    "dates": "{{ strftime_now('%Y') }}{{ date_string }}",
}


@pytest.fixture(scope="module")
def hf():
    return PreTrainedTokenizerFast.from_pretrained(POCKET)


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("name", [*(path.stem for path in TEMPLATES), *OTHERS])
def test_the_text_is_that_of_transformers(hf, name, add):
    path = Path(__file__).parent / "templates" / f"{name}.jinja"
    hf.chat_template = OTHERS.get(name) or path.read_text(encoding="utf-8")
    values = {"date_string": "26 Jul 2024", "enable_thinking": False}
    turns = TURNS if name != "r1_distill" else TURNS[1:]
    expected = hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=add, **values)
    assert render_within_limits(hf, turns, add, values) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "1 s"),
        ("{{ 'a' * 3000000000 }}", "512 MB"),
        ("{{ '%3000000000d' % 1 }}", "512 MB"),
        ("{% for a in range(99) %}{{ 'a' * 99999 }}{% endfor %}", "1,000,000 characters"),
        (
            "{% set n = namespace(a='ab') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}"
            "{% endfor %}",
            "512 MB",
        ),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ raise_exception('two\nlines') }}", "^two lines$"),
        ("{{ namespace(__class__=1) }}", "underscore"),
        ("{% for %}", "."),
        ("{{ messages.append(1) }}", "."),
    ],
    ids=[
        "time",
        "product",
        "width",
        "size",
        "doubling",
        "recursion",
        "own",
        "names",
        "parse",
        "list",
    ],
)
def test_a_template_that_fails_or_does_not_end_is_one_line(hf, monkeypatch, template, said):
    if said == "1 s":  # the others are to meet their own limit first, on a slow machine too
        monkeypatch.setattr(template_limits, "SECONDS", 1)
        monkeypatch.setitem(template_limits._ERRORS, "time", "more than 1 s")
    hf.chat_template = template
    with pytest.raises(TemplateError, match=said) as caught:
        render_within_limits(hf, TURNS, True, {})
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_with_such_a_template_is_refused_before_it_is_used(tmp_path):
    for path in POCKET.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "chat_template.jinja").write_text("{{ 'a' * 3000000000 }}")
    with pytest.raises(UserError, match=r"template of the tokenizer fails: it takes more than 512"):
        prepare_tokenizer(tmp_path)


def test_special_tokens_are_variables_of_the_template(hf):
    hf.chat_template = "{{ eos_token }}{{ unk_token }}"
    assert render_within_limits(hf, TURNS, True, {}) == f"{hf.eos_token}{hf.unk_token}"
    assert render_within_limits(hf, TURNS, True, {"eos_token": "x"}) == f"x{hf.unk_token}"
