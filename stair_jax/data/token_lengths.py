"""How long texts are, in tokens of a model or as an estimate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stair_jax.text import steps

_BATCH = 1000  # texts that are tokenized in one call
_PIECE = re.compile(r"[A-Z]?[a-z]+|\n+|\S")
_LETTERS = 7  # of a token at most, in the estimate


@dataclass(frozen=True)
class Lengths:
    """How long the texts of a column are, in tokens without a chat template.

    Attributes:
      texts: how many there are.
      least: tokens of the shortest.
      median: of them all.
      mean: of them all.
      most_of_95: as many as 95 % of them have at most.
      most: of the longest.
      total: of them all.
    """

    texts: int
    least: int
    median: float
    mean: float
    most_of_95: float
    most: int
    total: int


class TokenCounter:
    """Counts the tokens of texts; a tag of the answers is one token.

    Attributes:
      name: of what counts: a model's folder, or "estimated".
    """

    def __init__(self, folder: Path | None) -> None:
        """With the tokenizer of a Hugging Face folder; None: by an estimate.

        Raises:
          UserError: the folder has no tokenizer that can be read.
        """
        self.name = folder.name if folder else "estimated"
        self._backend: Any = None
        if folder:
            from stair_jax.text.tokenizer import load_huggingface

            self._backend = load_huggingface(folder).backend_tokenizer

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        if self._backend is None:
            return [estimate_tokens(text) for text in texts]
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            counts += self._counted(texts[start : start + _BATCH])
        return counts

    def _counted(self, texts: Sequence[str]) -> list[int]:
        split = [steps.TAG_PATTERN.split(text) for text in texts]
        pieces = [piece for parts in split for piece in parts]
        encoded = iter(self._backend.encode_batch(pieces, add_special_tokens=False))
        return [sum(len(next(encoded).ids) for _ in parts) + len(parts) - 1 for parts in split]


def estimate_tokens(text: str) -> int:
    """About the tokens of a byte-pair encoding: of rows in English most often a few too many.

    A word is a token for each 7 letters; a digit, a sign, a capital inside of a word, a letter of
    another script, a line break and a tag are one token each.
    """
    pieces = _PIECE.findall(steps.TAG_PATTERN.sub("\n", text))
    return sum(-(-len(piece.strip() or " ") // _LETTERS) for piece in pieces)


def measure(counts: Sequence[int]) -> Lengths:
    """The lengths of at least one text."""
    values = np.array(counts)
    return Lengths(
        texts=len(counts),
        least=int(values.min()),
        median=float(np.median(values)),
        mean=round(float(values.mean()), 1),
        most_of_95=float(np.percentile(values, 95, method="inverted_cdf")),
        most=int(values.max()),
        total=int(values.sum()),
    )
