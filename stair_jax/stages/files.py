"""The user's own data, or public data sets: checked, and copied into the run as JSON lines."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stair_jax.data.left_out import MAX_BAD_SHARE, LeftOutRows
from stair_jax.data.prompts import RowCheck, read_prompts
from stair_jax.data.public import JAILBREAK_SOURCES
from stair_jax.data.records import Record
from stair_jax.data.schema import KEEPABLE, ReadingOptions
from stair_jax.data.sources import check_source, read_parts, source_files, source_name
from stair_jax.data.taking import OWN, RECORDS, UNIQUE, Purpose, Taker, Tally
from stair_jax.data.text_files import SourceRows
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, Stage
from stair_jax.settings import setting
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.stages.tree_files import check_tree_files, copy_trees
from stair_jax.storage import write_jsonl

Row = dict[str, Any]
Sources = str | tuple[str, ...]


@dataclass(frozen=True)
class Files(Stage):
    """Settings of `files`: where data are, one source or several whose rows follow one another.

    A source is a path, from where the command is run: JSON lines, `.json`, `.csv`, `.tsv`, each
    plain or compressed by gzip or zstd, `.parquet`, `.arrow`, or a folder of datasets'
    `save_to_disk`; a pattern of such files, `data/part-*.jsonl`; or a data set of the Hugging Face
    hub, `owner/name`, `owner/name:config` or `owner/name:config/split`, with `@revision` behind it
    to fix a commit. Rows have our columns, which are below, or those of a known format: a public
    data set (PKU-SafeRLHF, UltraFeedback and its binarized form, JailbreakV-28k, STAIR-SFT,
    STAIR-Prompts, what the released code reads and writes), pairs {prompt, chosen, rejected}, chat
    `messages` or ShareGPT `conversations`, Alpaca's {instruction, input, output}, {question,
    answer} and {prompt, response}. Of PKU-SafeRLHF the safer answer is taken, of UltraFeedback the
    one with the highest score; the rejected one is the other, or the one with the lowest score. Of
    JailbreakV-28k the attacks in images are left out.

    Rows that are left out are in `left_out.jsonl`, with their source, line and reason.

    Attributes:
      sft: examples {id, prompt, answer, kind: "safety" or "helpfulness"}, into `sft.jsonl`.
      replay: examples of the same columns that `sft.replay` mixes in, into `replay.jsonl`.
      prompts: prompts {id, prompt, kind, source}, one or several sources an iteration, into
        `prompts1.jsonl`, `prompts2.jsonl`, ...
      dpo: preference pairs for DPO (docs/architecture.md), into `dpo.jsonl`.
      prm: pairs for the process reward model, of our columns, into `prm.jsonl`.
      trees: files of search trees, of ours or of the paper's released code, into `trees.jsonl.gz`.
        Those of the released code have the ids and kinds of `prompts` with the same text; other
        ones have the kind that `kinds` gives "STAIR-trees" or "*".
      kinds: kind of rows that do not say it, by their `source`: "safety" or "helpfulness"; "*"
        stands for any other source. Sources whose name has SafeRLHF, JailbreakV, UltraFeedback,
        safety or helpfulness in it need none. For rows without a source, the name of their file
        without folders and endings, or of their data set, stands for it.
      name_sources: whether prompts and examples without a `source` get the name of their file
        (without folders and endings), or of their data set, so that `sft.rates` can name it.
      keep: rows that are otherwise left out. "ties": both answers have the same score; "scores":
        the chosen one has the lower score, or two scores of one answer contradict each other;
        "labels": the answer that is called safer is labelled unsafe, and the other safe; "unsafe":
        no answer is safe, and one is chosen; "system": rows with a system turn, without it;
        "turns": chats of several turns and with a system turn, whose last question becomes the
        prompt, or the last answer that of the example, and the turns before it its `system` and
        `history` (pairs of such chats are left out all the same).
      max_bad_share: share of a source's rows that may be left out because they cannot be read, or
        are not as its other rows are; above it the source is refused.
      jailbreak_sources: of JailbreakV-28k, the sources (its column `from`) that are taken, by
        default those of the paper; empty: all.
    """

    VERSION: ClassVar[int] = 2
    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    sft: Sources = ""
    replay: Sources = ()
    prompts: tuple[Sources, ...] = ()
    dpo: Sources = ""
    prm: Sources = ()
    trees: Sources = ()
    kinds: Mapping[str, str] = setting(dict)
    name_sources: bool = setting(False, absent=False)
    keep: tuple[str, ...] = setting((), choices=tuple(KEEPABLE))
    # Like a setting of cost: whatever the limit, the rows that a source gives are the same.
    max_bad_share: float = setting(MAX_BAD_SHARE, least=0, most=1, cost=True)
    jailbreak_sources: tuple[str, ...] = JAILBREAK_SOURCES

    def __post_init__(self) -> None:
        """Raises a UserError when nothing is named."""
        super().__post_init__()
        named = (self.sft, self.replay, self.prompts, self.dpo, self.prm, self.trees)
        if not any(named):
            raise UserError("no file is named: set files.sft, .prompts, .dpo, .prm or .trees")

    def makes(self) -> Mapping[str, Artifact]:
        """The files that are named."""
        made = {artifact.name: artifact.holds for artifact in _artifacts(self)}
        return made | ({TREES_FILE: Artifact.TREES} if self.trees else {})

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """The files of each source; data sets of the hub are not asked for."""
        named = [source for artifact in _artifacts(self) for source in artifact.sources]
        named += _tuple(self.trees)
        return {source: source_files(source) for source in dict.fromkeys(named)}

    def check_environment(self, folder: Path) -> None:
        """Checks that files and folders are there; data sets of the hub are not asked for."""
        for artifact in _artifacts(self):
            for source in artifact.sources:
                check_source(source)
        check_tree_files(_tuple(self.trees))

    def run(self, context: StageContext) -> None:
        """Writes each file into the folder of the stage, so that later stages know its bytes."""
        left_out = LeftOutRows(self.max_bad_share)
        for artifact in _artifacts(self):
            rows = _read(context, self, artifact, left_out)
            write_jsonl(context.folder / artifact.name, rows)
        left_out.write(context.folder / "left_out.jsonl")
        if self.trees:
            self._copy_trees(context)

    def _copy_trees(self, context: StageContext) -> None:
        prompts = [
            prompt
            for name, holds in self.makes().items()
            if holds == Artifact.PROMPTS
            for prompt in read_prompts(context.folder / name)
        ]
        sources = _tuple(self.trees)
        path = context.folder / TREES_FILE
        count, repeated = copy_trees(path, sources, prompts, self.kinds)
        left_out = f"; {repeated} left out, the same as one before" if repeated else ""
        say(f"{context.name}: {count} trees from {', '.join(sources)}{left_out}")

    def amount(self) -> str:
        """The sources."""
        sources = [source for artifact in _artifacts(self) for source in artifact.sources]
        sources += _tuple(self.trees)
        return f"{len(sources)} source" + ("s" if len(sources) > 1 else "")


@dataclass(frozen=True)
class _Artifact:
    """A file of the stage, what it holds, and what its rows are wanted for."""

    name: str
    holds: Artifact
    sources: tuple[str, ...]
    purpose: Purpose

    @property
    def record(self) -> type[Record]:
        """What its rows are checked as."""
        return RECORDS[self.purpose]

    @property
    def is_keyed(self) -> bool:
        """Whether the ids of its rows are unique, and there is at least one."""
        return self.record in UNIQUE


def _read(
    context: StageContext, settings: Files, artifact: _Artifact, left_out: LeftOutRows
) -> Iterator[Row]:
    """The rows of all sources, checked."""
    options = ReadingOptions(settings.kinds, settings.keep, settings.jailbreak_sources)
    check = RowCheck(artifact.record, " and ".join(artifact.sources), artifact.is_keyed)
    for source in artifact.sources:
        parts, tally = read_parts(source), Tally()
        first = next(parts, SourceRows())
        name = source_name(source)
        taker = Taker(first, artifact.purpose, options, source, name)
        for part in itertools.chain([first], parts):
            taken = taker.take(part)
            taker.check_kinds()
            tally.add(part, taken)
            for _, row in taken.rows:
                if settings.name_sources and artifact.is_keyed:
                    row = row | {"source": row.get("source") or name}
                check.add(row)
                yield row
        _tell(context, source, taker.format, tally, left_out)
    if artifact.is_keyed:
        check.finish()
    sources = ", ".join(artifact.sources)
    say(f"{context.name}: {check.count} rows in {artifact.name}, from {sources}")


def _tell(
    context: StageContext, source: str, format: str, tally: Tally, left_out: LeftOutRows
) -> None:
    """Says what was left out of a source, and notes it."""
    text = left_out.add(source, tally.total, tally.dropped, tally.unreadable)
    passed_over = "".join(f"; {count} {what}" for what, count in tally.notes.most_common())
    if text or passed_over or format != OWN:
        title = source if format == OWN else f"{source} is {format}"
        say(f"{context.name}: {title}: {tally.kept} of {tally.total} rows{text}{passed_over}")
    if tally.total and not tally.kept:
        raise UserError(f"{source}: no row is left{text or ''}")


def _artifacts(settings: Files) -> list[_Artifact]:
    sft, replay = map(_tuple, (settings.sft, settings.replay))
    dpo, prm = map(_tuple, (settings.dpo, settings.prm))
    named = [
        _Artifact("sft.jsonl", Artifact.SFT_ROWS, sft, "sft"),
        _Artifact("replay.jsonl", Artifact.SFT_ROWS, replay, "sft"),
        *(
            _Artifact(f"prompts{number}.jsonl", Artifact.PROMPTS, _tuple(sources), "prompts")
            for number, sources in enumerate(settings.prompts, start=1)
        ),
        _Artifact("dpo.jsonl", Artifact.STEP_PAIRS, dpo, "dpo"),
        _Artifact("prm.jsonl", Artifact.PATH_PAIRS, prm, "prm"),
    ]
    return [artifact for artifact in named if artifact.sources]


def _tuple(sources: Sources) -> tuple[str, ...]:
    return (sources,) if isinstance(sources, str) and sources else tuple(sources)
