"""A tokenizer held against transformers: the same ids, except that text never gives control tokens.

Prompts are cut, and text is encoded by a copy of the tokenizer without control tokens
(`chat.encode_prompt`, `plain.plain_backend`). Probe texts show whether that gives the ids that
transformers, and so whoever serves an exported model, gives for the same texts.
"""

from collections.abc import Iterator, Sequence

from stair_jax.errors import UserError
from stair_jax.text import chat, steps
from stair_jax.text.rendering import encode_by_template
from stair_jax.text.tokenizer import Tokenizer

TEXTS = (
    "What is the first step?",
    "",
    "e\u0301 \u00e9 \u212b \u1112\u1161\u11ab \ud55c \u0958",  # that NFC composes or not
    "\ufb01 \u00bd \uff21\uff11",  # that NFKC would change
    "\u65e5\u672c\u8a9e\u4e2d\u6587\u3001\ud55c\uad6d\uc5b4",  # Chinese, Japanese, Korean
    "\U0001f600\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",  # emoji, some joined
    "a  b   c     d\t\te \t f",  # runs of spaces
    "one\n\n\n two \r\n    three\u00a0\u2003four",
    "x = 1234567; print('%d' % x)  # <b>&amp;</b> {{ y }}",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0939\u093f \u0e44\u0e17\u0e22",
    "\u2581word \u0120word <0x41> ##piece",  # marks of tokenizers
)


def check_encoding(tokenizer: Tokenizer) -> None:
    """Checks prompts and texts against transformers, and control tokens written as text.

    Raises:
      UserError: names the first probe that differs, and where.
    """
    if not _holds_control(tokenizer, tokenizer.chat.system or ""):
        for text, ours, theirs in _prompts(tokenizer):
            _compare(tokenizer, f"a prompt {text!r}", ours, theirs)
    for text in TEXTS:
        # Behind a tag, so that a space that begins a document is not at issue.
        ours = [tokenizer.tags.output_open, *tokenizer.encode_text(text)]
        theirs = tokenizer.hf.encode(steps.OUTPUT_OPEN + text, add_special_tokens=False)
        _compare(tokenizer, f"a text {text!r}", ours, theirs)
    frame = _control(tokenizer, chat.encode_prompt(tokenizer, "x"))
    for text in _control_texts(tokenizer):
        if _control(tokenizer, chat.encode_prompt(tokenizer, text)) != frame:
            raise UserError(
                f"a prompt {text!r} gives control tokens, which this tokenizer cannot tell from "
                "text: start from another checkpoint"
            )


def _prompts(tokenizer: Tokenizer) -> Iterator[tuple[str, list[int], list[int]]]:
    """(text, our token ids of it as a prompt, transformers') for each probe."""
    system = tokenizer.chat.system
    before = [] if system is None else [{"role": "system", "content": system.strip()}]
    chats = [[*before, {"role": "user", "content": text}] for text in TEXTS]
    references = encode_by_template(tokenizer.hf, tokenizer.chat, chats)
    for text, reference in zip(TEXTS, references, strict=True):
        yield text, chat.encode_prompt(tokenizer, text), reference


def _control_texts(tokenizer: Tokenizer) -> Iterator[str]:
    names = [token.content for token in tokenizer.hf.added_tokens_decoder.values()]
    for start in range(0, len(names), 16):  # some checkpoints reserve hundreds
        yield "".join(names[start : start + 16])
        yield " ".join(f"a{name}b" for name in names[start : start + 16])


def _control(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The control tokens among `ids`; the one for what a vocabulary lacks is none."""
    added = set(tokenizer.hf.added_tokens_decoder) - {tokenizer.hf.unk_token_id}
    return [token for token in ids if token in added]


def _holds_control(tokenizer: Tokenizer, text: str) -> bool:
    """Whether transformers would find a control token in a text, which is text to us."""
    return any(token.content in text for token in tokenizer.hf.added_tokens_decoder.values())


def _compare(tokenizer: Tokenizer, what: str, ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    place = next(
        (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
        min(len(ours), len(theirs)),
    )
    here, there = (tokenizer.hf.convert_ids_to_tokens(ids[place:][:3]) for ids in (ours, theirs))
    raise UserError(
        f"{what} has other tokens in transformers: from token {place} on {there}, here {here}; "
        "this tokenizer is not supported: start from another checkpoint, or change its template "
        "by model.chat_template"
    )
