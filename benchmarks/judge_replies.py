"""What could be left unwritten of a judge's replies: tokens behind its conclusion, or before it.

    python -m benchmarks.judge_replies --model runs/pocket/sft/hf --cases pocket
    python -m benchmarks.judge_replies --model MODEL [--cases FILE] [--caps 16,32]

A model judges labelled cases by written replies, as a search would. A line `replies` a question:

    replies, tokens   how many, and sampled tokens of one
    concluded         share that have a beginning which could be read as a whole reply
    behind            share of all sampled tokens that stand behind the shortest such beginning:
                      what a judge would not write that was stopped as soon as it can be read
    changed           share of these replies whose score is another one, or none, when all of it
                      is read: what stopping there would get wrong

and a line `capped` for each N of --caps, with judge.max_tokens = N and judge.ask_closing, beside
the same with whole replies (N = 0): tokens a score (`sampled`, `prefilled`), share of scores that
are `read`, share of those read by both that are the `same`, and the AUC of each question.
"""

import argparse
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.common import Lines
from stair_jax import recipes
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Completion, Request
from stair_jax.run.judge_check import load_judge
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.probe import ProbeResult, run_probe
from stair_jax.search.judging.probe_cases import POCKET, ProbeCase, read_cases
from stair_jax.search.judging.replies import QUESTIONS, Question, read_reply
from stair_jax.settings import build
from stair_jax.text.tokenizer import Tokenizer

_SEED = 0


@dataclass
class Heard:
    """An engine, and all that it completed.

    Attributes:
        engine: answers.
        completions: in the order in which they came.
    """

    engine: Engine
    completions: list[Completion] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """As of the engine."""
        return self.engine.pending

    def submit(self, requests: Iterable[Request]) -> None:
        """As of the engine."""
        self.engine.submit(requests)

    def step(self) -> list[Completion]:
        """As of the engine."""
        completed = self.engine.step()
        self.completions += completed
        return completed

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """As of the engine."""
        self.engine.cancel(ids)


def conclusion_end(
    question: Question, tokens: Sequence[int], tokenizer: Tokenizer, settings: JudgeSettings
) -> tuple[int, float] | None:
    """The shortest beginning of a reply that can be read: its number of tokens, and its score."""
    for count in range(1, len(tokens) + 1):
        score = _read(question, tokens[:count], tokenizer, settings)
        if score is not None:
            return count, score
    return None


def _read(
    question: Question, tokens: Sequence[int], tokenizer: Tokenizer, settings: JudgeSettings
) -> float | None:
    text = tokenizer.decode(tokens)
    return read_reply(question, text, settings.reading, settings.labels(question))


def measure_replies(
    question: Question, replies: Sequence[Completion], judge: Judge
) -> dict[str, Any]:
    """The figures of a line `replies`."""
    tokenizer, settings = judge.tokenizer, judge.settings
    total = sum(len(reply.tokens) for reply in replies)
    behind = concluded = changed = 0
    for reply in replies:
        end = conclusion_end(question, reply.tokens, tokenizer, settings)
        if end is None:
            continue
        concluded += 1
        behind += len(reply.tokens) - end[0]
        whole = None
        if reply.finish == "stop":
            whole = _read(question, reply.tokens, tokenizer, settings)
        changed += whole != end[1]
    return {
        "replies": len(replies),
        "tokens": total / max(len(replies), 1),
        "concluded": concluded / max(len(replies), 1),
        "behind": behind / max(total, 1),
        "changed": changed / max(concluded, 1),
    }


def _question(completion: Completion) -> Hashable:
    assert isinstance(completion.id, tuple)
    return completion.id[-1]


def _scores(result: ProbeResult) -> list[float | None]:
    """All scores that were asked for, in the order of the cases."""
    return [
        judgement.safety if question == "safety" else judgement.helpfulness
        for case, judgement in zip(result.cases, result.judgements, strict=True)
        for question in result.asked[case.kind]
    ]


def _judged(
    engine: Engine, judge: Judge, cases: Sequence[ProbeCase]
) -> tuple[ProbeResult, list[Completion], dict[str, Any]]:
    heard, stats = Heard(engine), engine.stats
    before = stats.generated, stats.prefilled
    result = run_probe(judge, Driver(heard), cases, _SEED)
    scores = _scores(result)
    aucs = {question: result.auc(question) for question in QUESTIONS}
    return (
        result,
        heard.completions,
        {
            "sampled": (stats.generated - before[0]) / max(len(scores), 1),
            "prefilled": (stats.prefilled - before[1]) / max(len(scores), 1),
            "read": result.readable,
            **{
                f"auc_{name}": None if found is None else found.value
                for name, found in aucs.items()
            },
        },
    )


def main() -> None:
    """Judges with whole replies, then with capped ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder, a hub id, a stage's folder")
    parser.add_argument("--cases", default="default", help="as of judge.probe")
    parser.add_argument("--caps", default="8,16", help="comma-separated numbers of tokens")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--max-tokens", type=int, default=256, help="of a whole reply")
    flags = parser.parse_args()
    lines = Lines({name: value for name, value in vars(flags).items() if name != "caps"})
    engine, tokenizer = load_judge(flags.model, flags.dtype, flags.slots, flags.context)
    settings = JudgeSettings(max_tokens=flags.max_tokens)
    if flags.cases == POCKET:
        section = recipes.get_config("pocket").search.judge.to_dict()
        section.pop("probe")
        settings = build(JudgeSettings, section, "judge")
    cases = read_cases(flags.cases)
    judge = Judge(tokenizer, settings)
    whole, completions, costs = _judged(engine, judge, cases)
    for question in QUESTIONS:
        replies = [c for c in completions if _question(c) == question and c.tokens]
        if replies:
            lines("replies", question=question, **measure_replies(question, replies, judge))
    lines("capped", cap=0, **costs)
    for cap in map(int, flags.caps.split(",")):
        shorter = replace(settings, max_tokens=cap, ask_closing=True)
        result, _, costs = _judged(engine, Judge(tokenizer, shorter), cases)
        pairs = zip(_scores(whole), _scores(result), strict=True)
        both = [first == second for first, second in pairs if None not in (first, second)]
        lines("capped", cap=cap, **costs, same=sum(both) / max(len(both), 1))


if __name__ == "__main__":
    main()
