"""The prompts of a judge as pieces and tokens."""

import re
from collections.abc import Sequence

from stair_jax.errors import UserError
from stair_jax.text.tokenizer import Tokenizer

# Texts that tokenizers join in different ways to what stands before them.
PROBES = ("a", "7", "(", "\u7684")


def split_template(question: str, template: str) -> tuple[str, str, str]:
    """The three pieces of a template around `{prompt}` and `{answer}`.

    Texts are put between the pieces, so that a placeholder inside of one is never replaced.
    """
    pieces = re.split(r"\{prompt\}|\{answer\}", template)
    in_order = 0 <= template.find("{prompt}") < template.find("{answer}")
    if len(pieces) != 3 or not in_order:
        raise UserError(
            f"judge.{question}_template must hold {{prompt}} and, after it, {{answer}}, once each"
        )
    return pieces[0], pieces[1], pieces[2]


def label_ids(tokenizer: Tokenizer, lead_in: str, labels: Sequence[str]) -> tuple[int, ...]:
    """The first token of each label where it follows the lead-in."""
    start = tokenizer.encode_text(lead_in)
    ids = []
    for label in labels:
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
    """What all of the sequences begin with."""
    first, last = min(sequences), max(sequences)
    same = (index for index, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1)
    return first[: next(same, len(first))]
