"""The chat template of a reward model's folder, with which transformers scores as we do.

A sequence classifier of transformers is read at the last token that is not padding. Our reward
models are trained to be read where a sampled answer or step ends: at the closing tag of its last
block, or, without a block, at the token that ends a turn. Templates of chat models write more than
that behind an answer (the end of the turn, ChatML's line break), and other things before it than
before an answer that is sampled (Qwen3's thoughts, system turns, dates).

So the folder gets a template of its own. It lets the checkpoint's template write the prompt, up to
where the answer starts, and puts the answer behind, as it is sampled.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.text import chat
from stair_jax.text.steps import (
    CLOSING_TAGS,
    TAGS,
    ends_block,
    format_answer,
    format_output,
    format_step,
)
from stair_jax.text.template_limits import TemplateError, render_all_within_limits
from stair_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast

_MARK = "{#- Written by stair_jax for a reward model: "
_TEMPLATE = (
    _MARK
    + """the score is read at the last token.
    An answer follows what the model's own template (below) writes up to where an answer starts;
    one that does not end with a block is closed by one token. -#}
{%- set scored = namespace(turns=[], answer=none) -%}
{%- for turn in messages -%}
    {%- if turn['content'] is not string -%}
        {{- raise_exception('the content of each turn must be text') -}}
    {%- endif -%}
    {%- set text = turn['content'] if turn['role'] == 'assistant' else turn['content'] | trim -%}
    {%- set scored.turns = scored.turns + [{'role': turn['role'], 'content': text}] -%}
{%- endfor -%}
{%- if scored.turns[-1]['role'] == 'assistant' -%}
    {%- set scored.answer = scored.turns[-1]['content'] | trim -%}
    {%- set scored.turns = scored.turns[:-1] -%}
REFUSAL
    {%- if not scored.turns or scored.turns[-1]['role'] != 'user' -%}
        {{- raise_exception("a user's turn must stand before the answer that is scored") -}}
    {%- endif -%}
{%- endif -%}
SYSTEM
{%- set messages = scored.turns -%}
{%- set add_generation_prompt = true -%}
VALUES
{#- The model's own template. #}
"""
)
_SYSTEM = """{%- if scored.turns[0]['role'] != 'system' -%}
    {%- set scored.turns = [{'role': 'system', 'content': TEXT}] + scored.turns -%}
{%- endif -%}
"""
# No tag: `lstrip_blocks` would strip white space that the model's own template ends with.
_ANSWER = "{{ '' if scored.answer is none else scored.answer ~ (CLOSING) }}"
_REFUSAL = "    {%- if CONDITION -%}{{- raise_exception(REASON) -}}{%- endif -%}\n"
_UNTAGGED = f"not scored.answer.startswith({TAGS!r})"

_PROMPTS = ("What is the first step?", "  two\n\nlines, 1234567 \r\n", "")
_STEPS = (format_step("Look", "It is  a list."), "\n\n" + format_step("Count", "1, 2, 3"))
_STRUCTURED = (
    format_answer([("Look", "It is a list.\n\n")], "three, <b>&amp;</b> \u00e9\u65e5"),
    format_output("4"),
    _STEPS[0],
    "".join(_STEPS),
)
_PLAIN = ("Three", "an I", "(a) b", "[b] c", "42.", "'tis", "- x\n- y", ".", "\u65e5\u672c", "")


def encode_scored(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Token ids of an answer, or of its first steps, up to where a reward model is read.

    What is sampled ends with the closing tag of a block, or else with `Tokenizer.end_id`.
    """
    ids = tokenizer.encode_answer(answer)
    return ids if ends_block(answer) else [*ids, tokenizer.end_id]


def scoring_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that is saved with a reward model, for `AutoModelForSequenceClassification`.

    Its `apply_chat_template`, given a prompt and an answer without further arguments, gives
    `[*encode_prompt(prompt), *encode_scored(answer)]`; the prompt alone if no assistant's turn
    comes last. White space around the texts is stripped. The system turn and the template's values
    (`ChatSettings`) are a part of the template, and so is the date. It pads on the right and
    truncates on the left, so that the score is read at the end of an answer also there.

    Where that cannot be (the template or the tokenizer glues text of the prompt and of the answer
    together), scoring such an answer fails with the reason, which is also logged. A tokenizer
    without a template, or with one of these, keeps its own.

    Raises:
      UserError: the tokenizer has no padding token, or one that ends answers.
    """
    hf = copy.deepcopy(tokenizer.hf)
    if hf.pad_token_id is None or hf.pad_token_id in tokenizer.stop_ids:
        raise UserError(
            "the tokenizer of a reward model needs a padding token that ends no answer, since "
            "transformers scores the last token that is no padding: load the model by a 'model' "
            "stage or stair_jax.load, which add one"
        )
    hf.padding_side, hf.truncation_side = "right", "left"
    hf.init_kwargs |= {"padding_side": "right", "truncation_side": "left"}  # what is saved
    if hf.chat_template:
        own = hf.get_chat_template()
        hf.chat_template = own if own.startswith(_MARK) else _scoring_template(tokenizer, hf, own)
    return Tokenizer(hf, tokenizer.stop_ids, tokenizer.chat, tokenizer.generation)


def _scoring_template(tokenizer: Tokenizer, hf: "PreTrainedTokenizerFast", own: str) -> str:
    """The template, which refuses what it would score elsewhere than we do; uses `hf` for probes.

    Raises:
      UserError: as `chat.encode_prompt`.
    """
    hf.chat_template = _compose(tokenizer, own)
    if reason := _difference(tokenizer, hf, _STRUCTURED):
        say(f"the exported chat template refuses to write answers to score: {reason}")
        return _compose(tokenizer, own, "true", reason)
    if reason := _difference(tokenizer, hf, _PLAIN):
        say(f"the exported chat template writes only structured answers to score: {reason}")
        return _compose(tokenizer, own, _UNTAGGED, reason)
    return str(hf.chat_template)


def _compose(tokenizer: Tokenizer, own: str, condition: str = "", reason: str = "") -> str:
    """The template as text; answers for which `condition` (Jinja) holds are refused."""
    settings = tokenizer.chat
    refusal = _REFUSAL.replace("CONDITION", condition).replace("REASON", ascii(reason))
    system = _SYSTEM.replace("TEXT", ascii((settings.system or "").strip()))
    values = "".join(
        f"{{%- set {name} = {value!a} -%}}\n"
        for name, value in settings.values.items()
        if name in own and name.isidentifier()
    )
    parts = {
        "REFUSAL\n": refusal if condition else "",
        "SYSTEM\n": "" if settings.system is None else system,
        "VALUES\n": values,
    }
    pattern = re.compile("^(" + "|".join(parts) + ")", re.MULTILINE)
    head = pattern.sub(lambda match: parts[match.group()], _TEMPLATE)
    end = str(tokenizer.hf.convert_ids_to_tokens(tokenizer.end_id))
    closing = f"'' if scored.answer.endswith({CLOSING_TAGS!r}) else {end!a}"
    # Jinja leaves out one line break at the end of a template, but not in the middle of one.
    own = settings.with_fixed_clock(own).removesuffix("\n").removesuffix("\r")
    return head + own + _ANSWER.replace("CLOSING", closing)


def _difference(tokenizer: Tokenizer, hf: "PreTrainedTokenizerFast", answers: Sequence[str]) -> str:
    """What transformers would make otherwise of one of these answers; "" if nothing."""
    probes = [(prompt, answer) for prompt in _PROMPTS for answer in answers]
    chats = [list(_turns(*probe)) for probe in probes]
    try:
        texts = render_all_within_limits(hf, chats, False, {})
    except TemplateError as error:
        return f"its own template fails there: {error}"
    for (prompt, answer), text in zip(probes, texts, strict=True):
        ours = [*chat.encode_prompt(tokenizer, prompt), *encode_scored(tokenizer, answer)]
        if hf.encode(text, add_special_tokens=False) != ours:
            return f"the answer {answer!r} would have other tokens than in training"
    return ""


def _turns(prompt: str, answer: str) -> Iterator[dict[str, Any]]:
    yield {"role": "user", "content": prompt}
    yield {"role": "assistant", "content": answer}
