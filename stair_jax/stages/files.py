"""The user's own data, or public data sets: checked, and copied into the run as JSON lines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from stair_jax.data.prompts import check_rows, read_prompts
from stair_jax.data.public import Use
from stair_jax.data.records import PathPair, Prompt, Record, SftRow, StepPair, read_dicts
from stair_jax.data.schemas import convert
from stair_jax.data.sources import check_source, read_source
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, Stage
from stair_jax.settings import setting
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.stages.tree_files import check_tree_files, copy_trees
from stair_jax.storage import write_jsonl

Rows = list[dict[str, Any]]
Sources = str | tuple[str, ...]


@dataclass(frozen=True)
class Files(Stage):
    """Settings of `files`: where data are, one source or several whose rows follow one another.

    A source is a path, from where the command is run: JSON lines, `.json`, `.csv`, `.parquet` or a
    folder of datasets' `save_to_disk`; or a data set of the Hugging Face hub, `owner/name` or
    `owner/name:config/split`. Rows have our columns, which are below, or those of a public data set
    (PKU-SafeRLHF, UltraFeedback and its binarized form, JailbreakV-28k, STAIR-SFT, STAIR-Prompts,
    what the released search reads), see data/public.py. Of PKU-SafeRLHF the safer answer is taken,
    of UltraFeedback the one with the highest score; the rejected one is the other, or the one with
    the lowest score. Of JailbreakV-28k the attacks in images are left out.

    Attributes:
      sft: examples {id, prompt, answer, kind: "safety" or "helpfulness"}, into `sft.jsonl`.
      prompts: prompts {id, prompt, kind, source}, one or several sources an iteration, into
        `prompts1.jsonl`, `prompts2.jsonl`, ...
      dpo: preference pairs for DPO (docs/architecture.md), into `dpo.jsonl`.
      prm: pairs for the process reward model, of our columns, into `prm.jsonl`.
      trees: files of search trees, of ours or of the paper's released code, into `trees.jsonl.gz`.
        Those of the released code have the ids and kinds of `prompts` with the same text; other
        ones have the kind that `kinds` gives "STAIR-trees" or "*".
      kinds: kind by the `source` of a row, for STAIR-SFT and STAIR-Prompts: "safety" or
        "helpfulness"; "*" stands for any other source. Sources whose name has SafeRLHF, JailbreakV,
        UltraFeedback, safety or helpfulness in it need none.
    """

    PROCESSES: ClassVar[Literal["all", "first"]] = "first"

    sft: Sources = ""
    prompts: tuple[Sources, ...] = ()
    dpo: Sources = ""
    prm: Sources = ()
    trees: Sources = ()
    kinds: Mapping[str, str] = setting(dict)

    def __post_init__(self) -> None:
        """Raises a UserError when nothing is named."""
        super().__post_init__()
        if not (self.sft or self.prompts or self.dpo or self.prm or self.trees):
            raise UserError("no file is named: set files.sft, .prompts, .dpo, .prm or .trees")

    def makes(self) -> Mapping[str, Artifact]:
        """The files that are named."""
        made = {artifact.name: artifact.holds for artifact in _artifacts(self)}
        return made | ({TREES_FILE: Artifact.TREES} if self.trees else {})

    def check_environment(self, folder: Path) -> None:
        """Checks that files and folders are there; data sets of the hub are not asked for."""
        for artifact in _artifacts(self):
            for source in artifact.sources:
                check_source(source)
        check_tree_files(_tuple(self.trees))

    def run(self, context: StageContext) -> None:
        """Writes each file into the folder of the stage, so that later stages know its bytes."""
        for artifact in _artifacts(self):
            parts = [_read(context, artifact, source, self.kinds) for source in artifact.sources]
            rows = [row for part in parts for row in part]
            if len(parts) > 1:
                artifact.check(rows, " and ".join(artifact.sources))
            write_jsonl(context.folder / artifact.name, rows)
            sources = ", ".join(artifact.sources)
            say(f"{context.name}: {len(rows)} rows in {artifact.name}, from {sources}")
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
    """A file of the stage: what it holds, and as what records its rows are checked, and how."""

    name: str
    holds: Artifact
    sources: tuple[str, ...]
    use: str
    record: type[Record]
    check_records: Callable[[Rows, type[Record], Any], Any]

    def check(self, rows: Rows, where: str) -> None:
        """Raises a UserError that names the line of a bad row."""
        self.check_records(rows, self.record, where)


def _read(
    context: StageContext, artifact: _Artifact, source: str, kinds: Mapping[str, str]
) -> Rows:
    """The rows of a source: our own as they are, whatever other columns they have; others as ours.

    So rows of the user keep what no record knows, and the schema number that they have or lack.
    """
    rows = read_source(source)
    is_ours = not rows or rows[0].keys() >= set(artifact.record.required())
    if not is_ours and artifact.use in get_args(Use):
        made = convert(rows, artifact.use, kinds, source)  # type: ignore[arg-type]
        reasons = ", ".join(f"{count} ({reason})" for reason, count in made.left_out.most_common())
        left_out = f"; left out: {reasons}" if reasons else ""
        counts = f"{len(made.rows)} of {len(rows)} rows{left_out}"
        say(f"{context.name}: {source} is {made.name}: {counts}")
        rows = [record.to_dict() for record in made.rows]
    artifact.check(rows, source)
    return rows


def _artifacts(settings: Files) -> list[_Artifact]:
    sft, dpo, prm = map(_tuple, (settings.sft, settings.dpo, settings.prm))
    named = [
        _Artifact("sft.jsonl", Artifact.SFT_ROWS, sft, "sft", SftRow, check_rows),
        *(
            _Artifact(
                f"prompts{number}.jsonl",
                Artifact.PROMPTS,
                _tuple(sources),
                "prompts",
                Prompt,
                check_rows,
            )
            for number, sources in enumerate(settings.prompts, start=1)
        ),
        _Artifact("dpo.jsonl", Artifact.STEP_PAIRS, dpo, "dpo", StepPair, read_dicts),
        _Artifact("prm.jsonl", Artifact.PATH_PAIRS, prm, "prm", PathPair, read_dicts),
    ]
    return [artifact for artifact in named if artifact.sources]


def _tuple(sources: Sources) -> tuple[str, ...]:
    return (sources,) if isinstance(sources, str) and sources else tuple(sources)
