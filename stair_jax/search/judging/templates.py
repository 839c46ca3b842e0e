"""Judge prompt templates: splitting at placeholders, label tokens, common token prefixes."""

import re
from collections.abc import Sequence

from stair_jax.errors import UserError
from stair_jax.text.tokenizer import Tokenizer

# Texts that tokenizers merge with what precedes them in different ways: a letter, a digit, a
# bracket and a CJK character.
PROBES = ("a", "7", "(", "\u7684")


def split_template(question: str, template: str) -> tuple[str, str, str]:
    """The three pieces of a template before, between and after `{prompt}` and `{answer}`.

    Texts are concatenated with the pieces instead of substituted by `str.format`, so that a
    placeholder or brace inside of a text is never replaced.

    Raises:
      UserError: the placeholders do not occur once each, `{prompt}` first.
    """
    pieces = re.split(r"\{prompt\}|\{answer\}", template)
    in_order = 0 <= template.find("{prompt}") < template.find("{answer}")
    if len(pieces) != 3 or not in_order:
        raise UserError(
            f"judge.{question}_template must hold {{prompt}} and, after it, {{answer}}, once each"
        )
    return pieces[0], pieces[1], pieces[2]


def label_ids(tokenizer: Tokenizer, lead_in: str, labels: Sequence[str]) -> tuple[int, ...]:
    """The first token id of each label, as tokenised after the lead-in.

    Raises:
      UserError: two labels have the same first token, so that one next-token distribution cannot
        tell them apart.
    """
    start = tokenizer.encode_text(lead_in)
    ids = []
    for label in labels:
        # Encoded together, as a label may have another token in context (with a space, say). Where
        # lead-in and label are merged into one token, the label's own first token is used.
        joined = tokenizer.encode_text(lead_in + label)
        follows = joined[: len(start)] == start and len(joined) > len(start)
        ids.append(joined[len(start)] if follows else tokenizer.encode_text(label)[0])
    if len(set(ids)) != len(ids):
        raise UserError(
            f"the labels {', '.join(labels)} do not differ in their first token after "
            f"{lead_in!r}: change the judge's lead-in, or set judge.mode to 'generative'"
        )
    return tuple(ids)


def common_start(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest common prefix of token sequences."""
    first, last = min(sequences), max(sequences)
    same = (index for index, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1)
    return first[: next(same, len(first))]
