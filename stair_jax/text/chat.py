"""Prompts as token ids, by the chat template of the checkpoint."""

from functools import lru_cache

from jinja2 import TemplateError

from stair_jax.errors import UserError
from stair_jax.text.tokenizer import Tokenizer

_PLACEHOLDER = "\ue000user text\ue000"  # private-use characters: no template holds them


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Token ids of one user turn, up to where the answer starts.

    The template's own text is tokenised with its control tokens, the user's text without any:
    a tag or `<|eot_id|>` inside a prompt stays text. The pieces are tokenised apart and joined.

    Raises:
      UserError: the tokenizer has no chat template, or one that does not hold the user's text.
    """
    before, after = turn_ids(tokenizer)
    return [*before, *tokenizer.encode_text(prompt.strip()), *after]


@lru_cache(maxsize=8)
def turn_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids that the template puts before and after the text of a user turn."""
    if not tokenizer.hf.chat_template:
        raise UserError(
            "the tokenizer has no chat template: add chat_template.jinja to the folder of its "
            "checkpoint, or start from a checkpoint that was tuned for chat"
        )
    turn = {"role": "user", "content": _PLACEHOLDER}
    try:
        rendered = str(
            tokenizer.hf.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        )
    except TemplateError as error:
        raise UserError(f"the chat template of the tokenizer fails: {error}") from error
    if rendered.count(_PLACEHOLDER) != 1:
        raise UserError("the chat template of the tokenizer does not hold the user's text once")
    before, _, after = rendered.partition(_PLACEHOLDER)
    encode = tokenizer.hf.encode
    return (
        tuple(encode(before, add_special_tokens=False)),
        tuple(encode(after, add_special_tokens=False)),
    )


def encode_answer(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Token ids of a whole answer, closed by the end-of-sequence token."""
    return [*tokenizer.encode_answer(answer), tokenizer.eos_id]
