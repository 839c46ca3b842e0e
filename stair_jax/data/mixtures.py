"""Mixtures of data by rates of their kinds or sources, through seqio or Hugging Face datasets.

Both readers mix row indices: the texts stay in Python lists, and the libraries do the mixing, the
shuffling and the repetition. seqio's feature converters are not used: they treat id 0 as padding,
which is a real token in Llama 3 (`packing.py` works with explicit lengths instead).
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from stair_jax.data.prompts import read_rows
from stair_jax.data.records import KINDS, PreferencePair, SftRow
from stair_jax.data.shuffling import grouped_passes
from stair_jax.errors import UserError

R = TypeVar("R")
Reader = Literal["seqio", "datasets"]
Rates = Mapping[str, float]
RatesBy = Literal["kind", "source"]
Outcome = Literal["refuse", "comply", "neither"]  # what a preference pair teaches
By = RatesBy | Literal["outcome"]
OTHERS = "*"  # among rates by source: all sources that they do not name


def read_mixture(
    path: str | Path,
    rates: Rates | None,
    num_examples: int,
    seed: int,
    reader: Reader = "seqio",
) -> list[SftRow]:
    """Draws `num_examples` rows of a JSON-lines file, mixed by kind at the given rates.

    Each draw picks a kind with probability proportional to its rate, and takes the next row of that
    kind. The rows of a kind are reshuffled for each pass over them, and no row repeats within a
    pass. Deterministic in its arguments; the two readers give different orders.

    Args:
      path: JSON lines {id, prompt, answer, kind}.
      rates: relative rate of each kind, e.g. {"safety": 1, "helpfulness": 1}. None ignores the
        kinds: shuffled passes over the whole file.
      num_examples: number of rows to draw.
      seed: for the choice of kinds and the shuffling.
      reader: "seqio", or "datasets", which does not import TensorFlow.

    Raises:
      UserError: a bad file, bad rates, or an unknown reader.
    """
    return mix(read_rows(path, SftRow), rates, num_examples, seed, reader, path)


def mix(
    rows: Sequence[SftRow],
    rates: Rates | None,
    num_examples: int,
    seed: int,
    reader: Reader,
    where: str | Path,
    by: RatesBy = "kind",
) -> list[SftRow]:
    """As `read_mixture`, of rows that are read already; messages call them `where`.

    Rates by "source" are of the rows' sources; "*" is the rate of all others together.
    """
    check_mixing(rates, reader, by)
    if by == "source" and rates is not None:
        sources = _named_sources([row.source or "" for row in rows], rates, where)
    else:
        sources = _sources([row.kind for row in rows], rates, where, "kind")
    return [rows[index] for index in _READERS[reader](sources, num_examples, seed)]


def draw(
    pairs: Sequence[PreferencePair],
    rates: Rates | None,
    num_examples: int,
    seed: int,
    reader: Reader = "seqio",
    where: str | Path = "the data",
    keys: Sequence[Hashable] | None = None,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """Numbers of the pairs that training takes, in its order.

    Args:
      pairs: with a `kind` each, where there are rates of kinds.
      rates: relative rate of the pairs of each kind or outcome; None: whole passes, shuffled
        without a reader.
      num_examples: how many numbers to draw.
      seed: of the choice of kinds and of the shuffling.
      reader: "seqio" or "datasets".
      where: what messages call the pairs.
      keys: of each pair; those with equal ones (and of one kind) come side by side, as a whole.
        None: each pair is alone.
      labels: of each pair, its outcome, which the rates then name; None: they name kinds.

    Raises:
      UserError: a pair without a known kind, bad rates, or an unknown reader.
    """
    by: By = "kind" if labels is None else "outcome"
    check_mixing(rates, reader, by)
    keys = range(len(pairs)) if keys is None else keys
    if rates is None:
        return grouped_passes(keys, num_examples, seed)
    groups: dict[tuple[str, Hashable], list[int]] = {}
    labels = _kinds(pairs, where) if labels is None else labels
    for index, (label, key) in enumerate(zip(labels, keys, strict=True)):
        groups.setdefault((label, key), []).append(index)
    members = list(groups.values())
    by_label = _sources([label for label, _ in groups], rates, where, by)
    # Large groups are drawn less often: the rates are those of pairs.
    sources = {
        label: (rate * len(numbers) / sum(len(members[number]) for number in numbers), numbers)
        for label, (rate, numbers) in by_label.items()
    }
    drawn = _READERS[reader](sources, num_examples, seed)
    return [index for number in drawn for index in members[number]][:num_examples]


def _kinds(pairs: Sequence[PreferencePair], where: str | Path) -> list[str]:
    kinds = []
    for pair in pairs:
        if pair.kind is None or pair.kind not in KINDS:
            raise UserError(
                f"{where}: row {pair.id!r} has the kind {pair.kind!r}: rates need "
                f"{' or '.join(KINDS)} in each row; or leave rates unset"
            )
        kinds.append(pair.kind)
    return kinds


def mix_in(rows: Sequence[R], others: Sequence[R], share: float, seed: int) -> list[R]:
    """`rows` in their order, with `others` at random places between them.

    Args:
      rows: the examples of a whole training.
      others: drawn in shuffled passes, as often as their share needs.
      share: of the others in the result, at least 0 and below 1.
      seed: of the draw and of the places.
    """
    count = round(share / (1 - share) * len(rows)) if others else 0
    drawn = [others[index] for index in shuffled_passes(len(others), count, [seed, 1])]
    is_other = np.zeros(len(rows) + count, bool)
    is_other[np.random.default_rng([seed, 2]).permutation(is_other.size)[:count]] = True
    own, taken = iter(rows), iter(drawn)
    return [next(taken) if other else next(own) for other in is_other]


def shuffled_passes(size: int, num_examples: int, seed: int | Sequence[int]) -> list[int]:
    """`num_examples` indices in [0, size), in passes: each pass is a new random permutation."""
    generator = np.random.default_rng(seed)
    passes = [generator.permutation(size) for _ in range(-(-num_examples // size))]
    return np.concatenate(passes)[:num_examples].tolist()


def check_mixing(rates: Rates | None, reader: str, by: By = "kind") -> None:
    """Checks the settings of a mixture before any data is read.

    Raises:
      UserError: an unknown kind, a rate below 0, no rate above 0, or an unknown reader.
    """
    if reader not in _READERS:
        raise UserError(f"reader {reader!r} is unknown: use {' or '.join(_READERS)}")
    if rates is not None:
        _wanted(rates, by)


# Name of a source -> (its rate, the indices of its rows).
_Sources = Mapping[str, tuple[float, Sequence[int]]]


def _sources(labels: Sequence[str], rates: Rates | None, path: str | Path, by: str) -> _Sources:
    if rates is None:
        return {"all": (1.0, range(len(labels)))}
    sources = {}
    for name, rate in _wanted(rates, by).items():
        indices = [index for index, label in enumerate(labels) if label == name]
        if not indices:
            raise UserError(f"{path} has no {name} row, but its rate is {rate}: set it to 0")
        sources[name] = (rate, indices)
    return sources


def _named_sources(names: Sequence[str], rates: Rates, where: str | Path) -> _Sources:
    """The rows of each source that has a rate, and of all others where these have one."""
    numbers: dict[str, list[int]] = {name: [] for name in rates}
    for index, name in enumerate(names):
        if name not in numbers and OTHERS not in numbers:
            raise UserError(
                f"{where}: rates have no source {name!r}, of which there are "
                f"{names.count(name)} rows: name it (a rate of 0 leaves it out), or {OTHERS!r} for "
                "all others"
            )
        numbers[name if name in numbers else OTHERS].append(index)
    for name, rate in rates.items():
        if rate > 0 and not numbers[name]:
            known = ", ".join(map(repr, dict.fromkeys(names)))
            raise UserError(f"{where} has no row of the source {name!r}: its sources are {known}")
    # seqio has rules for names.
    return {
        f"source{number}": (rate, numbers[name])
        for number, (name, rate) in enumerate(_wanted(rates, "source").items())
    }


def _names(by: str) -> tuple[str, ...]:
    """What rates may name; empty: anything."""
    return {"kind": KINDS, "outcome": get_args(Outcome)}.get(by, ())


def _wanted(rates: Rates, by: str) -> dict[str, float]:
    """The rates above 0."""
    known = _names(by)
    for name, rate in rates.items():
        if known and name not in known:
            raise UserError(f"rates name the unknown {by} {name!r}: use {' and '.join(known)}")
        if not rate >= 0:
            raise UserError(f"the rate of {name} is {rate}: it must be 0 or more")
    wanted = {name: float(rate) for name, rate in rates.items() if rate > 0}
    if not wanted:
        raise UserError(f"all rates are 0: at least one {by} needs a rate above 0")
    return wanted


def _read_with_seqio(sources: _Sources, num_examples: int, seed: int) -> list[int]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # silences TensorFlow's warnings about missing GPUs
    import seqio  # imports TensorFlow, which takes about 20 s: only where a mixture is read
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # TensorFlow would claim the memory of the GPU

    def task(name: str, indices: Sequence[int]) -> Any:
        numbers = np.asarray(indices, np.int32)[:, None]

        def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
            # Shuffled here, as seqio shuffles after repeating, which mixes the passes.
            return tf.data.Dataset.from_tensor_slices({"row": numbers}).shuffle(len(numbers), seed)

        # The "tokens" that seqio sees are row indices.
        feature = seqio.Feature(seqio.PassThroughVocabulary(2**31 - 1), add_eos=False)
        source = seqio.FunctionDataSource(dataset, ["train"])
        return seqio.Task(name, source, {"row": feature}, [])

    tasks = [(task(name, indices), rate) for name, (rate, indices) in sources.items()]
    mixture = seqio.Mixture("stair", tasks)
    dataset = mixture.get_dataset(None, split="train", shuffle=False, num_epochs=None, seed=seed)
    return [int(row["row"][0]) for row in dataset.take(num_examples).as_numpy_iterator()]


def _read_with_datasets(sources: _Sources, num_examples: int, seed: int) -> list[int]:
    import datasets

    streams = []
    for number, (_, indices) in enumerate(sources.values()):
        # Repeated here: each stream alone is long enough, so that none is exhausted too early.
        order = shuffled_passes(len(indices), num_examples, [seed, number])
        streams.append(datasets.Dataset.from_dict({"row": [indices[place] for place in order]}))
    rates = np.array([rate for rate, _ in sources.values()])
    mixed = datasets.interleave_datasets(
        streams, list(rates / rates.sum()), seed=seed, stopping_strategy="first_exhausted"
    )
    return list(mixed[:num_examples]["row"])


_READERS = {"seqio": _read_with_seqio, "datasets": _read_with_datasets}
