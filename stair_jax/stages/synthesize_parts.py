"""What `synthesize` makes of judged answers: files, counts, metrics and samples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stair_jax.data.records import SftRow, StepPair, SynthesisPrompt
from stair_jax.errors import UserError
from stair_jax.monitoring import order_samples, write_metrics
from stair_jax.run.context import StageContext
from stair_jax.samples import Sample
from stair_jax.storage import atomic_file, iterate_jsonl, json_line, read_json, write_json
from stair_jax.synthesis.pairs import make_pair
from stair_jax.synthesis.prompt_task import REPAIRS
from stair_jax.synthesis.records import JudgedAnswer, PromptAnswers
from stair_jax.synthesis.selection import Selection, select

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize

ANSWERS_FILE, SFT_FILE, REJECTED_FILE = "answers.jsonl", "sft.jsonl", "rejected.jsonl"
PAIRS_FILE, COUNTS_FILE = "dpo.jsonl", "counts.json"
_KEPT = "kept"


@dataclass
class _Made:
    """What is made of all prompts, in their order: files that are being written, and counts."""

    files: Mapping[str, BinaryIO]
    pairs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    no_pair: Counter[str] = field(default_factory=Counter)
    judge: Counter[str] = field(default_factory=Counter)
    repairs: int = 0
    tokens: int = 0

    def write(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to a file."""
        self.files[file].writelines(map(json_line, rows))


def read_answers(folder: Path) -> Iterator[PromptAnswers]:
    """The answers to all prompts, in the order of these."""
    path = folder / ANSWERS_FILE
    for number, line in enumerate(iterate_jsonl(path), start=1):
        yield PromptAnswers.from_dict(line.row, f"{path}, line {number}")


def write_results(
    context: StageContext,
    stage: "Synthesize",
    prompts: Sequence[SynthesisPrompt],
    answers: Iterator[PromptAnswers],
) -> None:
    """Sorts the answers and writes what they give.

    Raises:
      UserError: no pair is made, or where none are wanted no answer kept; says why.
    """
    folder, names = context.folder, [SFT_FILE, REJECTED_FILE, *[PAIRS_FILE] * bool(stage.pairs)]
    with ExitStack() as stack:
        made = _Made({name: stack.enter_context(atomic_file(folder / name)) for name in names})
        write_metrics(folder, _sort(made, stage, prompts, answers))
    counts = {
        "prompts": len(prompts),
        "skipped": _sorted(made.skipped),
        "answers": _sorted(made.answers),
        "kinds": _sorted(made.kinds),
        "categories": _sorted(made.categories),
        **({"pairs": made.pairs, "no_pair": _sorted(made.no_pair)} if stage.pairs else {}),
        **({"repairs": made.repairs} if stage.repair else {}),
        "judge": _sorted(made.judge),
        "generated_tokens": made.tokens,
    }
    write_json(folder / COUNTS_FILE, counts)
    order_samples(folder, (prompt.id for prompt in prompts))
    if stage.pairs and not made.pairs:
        raise UserError(
            f"no prompt gave a pair ({_told(made.no_pair)}): raise temperature or num_candidates, "
            "lower v0 or v1, or see the judge's scores in answers.jsonl"
        )
    if not stage.pairs and not made.answers[_KEPT]:
        raise UserError(
            f"no answer was kept ({_told(made.answers + made.skipped)}): see {REJECTED_FILE}, and "
            "change template, judge, min_safety, min_helpfulness or min_reward"
        )


def _sort(
    made: _Made,
    stage: "Synthesize",
    prompts: Sequence[SynthesisPrompt],
    answers: Iterator[PromptAnswers],
) -> Iterator[dict[str, float]]:
    """Writes what each prompt gives; the metrics of the prompts."""
    for prompt, found in zip(prompts, answers, strict=True):
        _add(made, stage, prompt, found)
        yield prompt_metrics(stage, prompt, found)


def summarize(folder: Path) -> str:
    """What was kept, in one line."""
    counts = read_json(folder / COUNTS_FILE)
    parts = [
        f"{counts['answers'].get(_KEPT, 0)} of {sum(counts['answers'].values())} answers to "
        f"{counts['prompts']} prompts kept",
        _told({name: n for name, n in counts["answers"].items() if name != _KEPT}),
    ]
    if "pairs" in counts:
        parts.append(f"{counts['pairs']} pairs")
    return "; ".join(filter(None, parts))


def prompt_metrics(
    stage: "Synthesize", prompt: SynthesisPrompt, found: PromptAnswers
) -> dict[str, float]:
    """The metrics of one prompt; none of them depends on the clock."""
    rewards = [each.reward for each in found.answers if each.reward is not None]
    nothing = float("nan")
    return {
        "answers": len(found.answers),
        "kept": len(_select(stage, prompt, found).kept),
        "sound": sum(not each.reason for each in found.answers),
        "reward": sum(rewards) / len(rewards) if rewards else nothing,
        "best_reward": max(rewards, default=nothing),
        "generated_tokens": found.generated_tokens,
    }


def answer_sample(
    stage: "Synthesize", prompt: SynthesisPrompt, found: PromptAnswers
) -> Sample | None:
    """The best answer that is kept, or else the first one; None: there is none."""
    chosen = [*_select(stage, prompt, found).kept, *found.answers][:1]
    if not chosen:
        return None
    texts = {"id": prompt.id, "prompt": prompt.prompt, "answer": chosen[0].text}
    return Sample("answer", texts, chosen[0].scores)


def _select(stage: "Synthesize", prompt: SynthesisPrompt, found: PromptAnswers) -> Selection:
    return select(prompt, found, stage, stage.judge)


def _add(made: _Made, stage: "Synthesize", prompt: SynthesisPrompt, found: PromptAnswers) -> None:
    selection = _select(stage, prompt, found)
    made.tokens += found.generated_tokens
    counts = dict(found.counts)
    made.repairs += counts.pop(REPAIRS, 0)
    made.judge.update(counts)
    made.write(SFT_FILE, (_sft_row(prompt, found, answer) for answer in selection.kept))
    rejected = (_rejected_row(prompt, answer, reason) for answer, reason in selection.rejected)
    made.write(REJECTED_FILE, rejected)
    if found.skipped:
        made.skipped[found.skipped] += 1
        made.write(REJECTED_FILE, [_rejected_row(prompt, None, found.skipped)])
    made.answers.update(reason for _, reason in selection.rejected)
    made.answers[_KEPT] += len(selection.kept)
    made.kinds[prompt.kind] += len(selection.kept)
    if found.category:
        made.categories[found.category] += len(selection.kept)
    if stage.pairs:
        pair = make_pair(prompt, found, stage, stage.max_similarity)
        if isinstance(pair, StepPair):
            made.write(PAIRS_FILE, [pair.to_dict()])
            made.pairs += 1
        else:
            made.no_pair[pair] += 1


def _sft_row(prompt: SynthesisPrompt, found: PromptAnswers, answer: JudgedAnswer) -> dict[str, Any]:
    """An SFT example of the bare prompt, with columns that tell where it is from."""
    row = SftRow(
        f"{prompt.id}:{answer.number}",
        prompt.prompt,
        answer.text,
        prompt.kind,
        system=prompt.system,
        history=prompt.history,
        start=prompt.start,
    )
    about = {
        "source": prompt.source,
        "reference": prompt.reference,
        "category": found.category or prompt.category,
    }
    return row.to_dict() | {name: value for name, value in about.items() if value is not None}


def _rejected_row(
    prompt: SynthesisPrompt, answer: JudgedAnswer | None, reason: str
) -> dict[str, Any]:
    return {
        "id": prompt.id if answer is None else f"{prompt.id}:{answer.number}",
        "prompt": prompt.prompt,
        "kind": prompt.kind,
        "answer": None if answer is None else answer.text,
        "reason": reason,
        "scores": {} if answer is None else answer.scores,
    }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _told(counts: Mapping[str, int]) -> str:
    """Counts in words, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered if count)
