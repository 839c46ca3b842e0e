"""Builds the data of the study: reads the sets, makes the rows, checks them, writes the files."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stair_jax.data.built_folder import write_folder
from stair_jax.data.decontamination import HeldOutTexts, Thresholds
from stair_jax.data.study.admission import Admission
from stair_jax.data.study.benchmark_files import benchmark_files
from stair_jax.data.study.card import format_card
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.checking import check_files
from stair_jax.data.study.evaluation_rows import (
    development_benchmarks,
    make_development,
    make_reported,
)
from stair_jax.data.study.harmless_words import NAME, harmless_words_record
from stair_jax.data.study.judge_rows import make_cases, make_labels
from stair_jax.data.study.needs import check_found, check_not_empty, missing_lines
from stair_jax.data.study.prompts import make_prompts
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.sft import make_contrast, make_sft, without_reasoning
from stair_jax.data.study.sizes import FULL, SMALL, Sizes
from stair_jax.data.study.sources import Choice, Sources
from stair_jax.data.study.texts import token_counter
from stair_jax.data.study.workshop import Workshop
from stair_jax.monitoring import say

Files = dict[str, list[Row]]  # by path below the folder, without the ending


@dataclass(frozen=True)
class Options:
    """What is built.

    Attributes:
      sources: which sets are read, and from where.
      small: a few short rows, for a first model on a small machine.
      tokenizer: a Hugging Face folder whose tokens are counted; None: they are estimated.
      max_tokens: of an SFT row; 0: as the size says.
      seed: of all orders.
      required: sets whose absence is an error.
    """

    sources: Choice
    small: bool = False
    tokenizer: Path | None = None
    max_tokens: int = 0
    seed: int = 0
    required: Collection[str] = ()

    @property
    def sizes(self) -> Sizes:
        """How many rows, and how long."""
        sizes, most = SMALL if self.small else FULL, self.max_tokens
        return replace(sizes, max_tokens=most, contrast_tokens=most) if most else sizes


def build_study(options: Options, out: Path) -> dict[str, Any]:
    """Builds all files in a folder.

    Args:
      options: what is built.
      out: the folder; new, empty, or with an earlier build, which is replaced.

    Returns:
      what `data.json` says.

    Raises:
      UserError: a required set is absent, a file would be empty, a set or the tokenizer cannot be
        read, or the folder holds something else.
    """
    count = token_counter(options.tokenizer)
    sources = Sources(options.sources)
    for name, one in SETS.items():
        if one.prompt or not options.small or name in options.required:
            sources.rows(name)
    check_found(sources, options.required)
    for line in missing_lines(sources):
        say(line)
    say("indexing the prompts that must not be trained on")
    admission = Admission(
        HeldOutTexts(_held_out(sources, ("reported", "development"))),
        HeldOutTexts(_held_out(sources, ("reported",))),
    )
    shop = Workshop(sources, admission, options.sizes, count, options.seed)
    files = _make(shop)
    check_not_empty(files, sources)
    check_files(files)
    record = _record(options, shop, files)
    files |= development_benchmarks(files["dev"])
    benches = () if options.small else benchmark_files(sources)
    others = ((f"bench/{path}", data) for path, data in benches)
    write_folder(out, files, admission.left_out, record, format_card, others)
    return record


def _make(shop: Workshop) -> Files:
    """All rows; what comes first has the first choice of the prompts."""
    say("making the SFT rows")
    sft = make_sft(shop)
    files: Files = {
        "sft": sft,
        "sft_contrast": make_contrast(shop),
        "sft_direct": without_reasoning(sft),
    }
    say("making labelled cases, development rows and prompts")
    files["judge_cases"] = make_cases(shop)
    files["judge_labels/xstest_refusal"] = make_labels(shop)
    files["dev"] = make_development(shop)
    files |= {f"prompts{number}": rows for number, rows in make_prompts(shop).items()}
    return files | {f"eval/{name}": rows for name, rows in make_reported(shop).items()}


def _held_out(sources: Sources, roles: Collection[str]) -> Iterator[tuple[str, str]]:
    """(set, prompt) of all sets of some roles."""
    for name, one in SETS.items():
        if one.role in roles and one.prompt:
            for row in sources.rows(name):
                yield name, one.prompt_of(row)


def _record(options: Options, shop: Workshop, files: Mapping[str, list[Row]]) -> dict[str, Any]:
    """What `data.json` says, but for the files' hashes."""
    return {
        "seed": options.seed,
        "small": options.small,
        "tokens": str(options.tokenizer.name) if options.tokenizer else "estimated",
        "thresholds": Thresholds(),
        "sizes": options.sizes,
        "sources": shop.sources.record() | {NAME: harmless_words_record()},
        "absent": dict(sorted(shop.sources.absent.items())),
        "counts": {part: dict(counts) for part, counts in sorted(shop.admission.counts.items())},
        "rows": {name: len(rows) for name, rows in files.items()},
    }
