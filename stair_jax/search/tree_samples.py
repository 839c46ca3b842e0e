"""Text samples of a search: the best answer of a tree, and one of its judgements with the replies.

Only for people who look on: nothing of the search depends on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax.samples import Sample
from stair_jax.search.tree_records import TreeRecord
from stair_jax.text.tokenizer import Tokenizer

# By node and visit, what the judge said, see `add_reply`.
Replies = dict[tuple[int, int], dict[str, str]]


@dataclass(frozen=True)
class TreeSamples:
    """Of which trees samples are taken, and what becomes of them.

    Attributes:
      every: the trees of the first prompt, and of each one so many prompts further on.
      write: called with the samples of a finished tree before the tree itself is passed on.
    """

    every: int
    write: Callable[[Sequence[Sample]], None]

    def wants(self, place: int) -> bool:
        """Whether samples of the tree of prompt number `place` are taken."""
        return place % self.every == 0


def add_reply(said: dict[str, str], question: str, tokenizer: Tokenizer, completion: Any) -> None:
    """Adds what a judge answered to what it `said` of one answer.

    Texts of one question, such as those of several attempts, stand one behind another; of the
    log-probabilities of labels, and of scores of a reward model, the last ones stay.

    Args:
      said: texts by name.
      question: name of judge and question.
      tokenizer: of the searching model.
      completion: of the engine, of an endpoint, or of a reward model.
    """
    tokens = getattr(completion, "tokens", ())
    text = tokenizer.decode(tokens) if tokens else getattr(completion, "text", "")
    if text:
        before = said.get(f"{question} reply")
        said[f"{question} reply"] = text if before is None else f"{before}\n---\n{text}"
    if scores := getattr(completion, "scores", ()):
        said[f"{question} labels"] = ", ".join(f"log p {score:.3f}" for score in scores)
    if (value := getattr(completion, "value", None)) is not None:
        said[f"{question} score"] = f"{value:.4g}"


def tree_samples(record: TreeRecord, replies: Replies) -> list[Sample]:
    """The samples of a tree; none of one in which nothing was evaluated.

    Args:
      record: of the tree.
      replies: of its judge.

    Returns:
      "tree": the answer with the highest reward, the first of several, and what the tree came to;
      "judgement": the first judged answer with what the judge replied, readable or not. Both with
      the start of the answers, where the tree has one.
    """
    entries = [
        (index, visit, entry)
        for index, node in enumerate(record.nodes)
        for visit, entry in enumerate(node.judgements, start=1)
    ]
    prompt = {"id": record.id, "prompt": record.prompt}
    if record.start:
        prompt["start"] = "".join(record.start)
    found = []
    if rewarded := [entry for _, _, entry in entries if entry["reward"] is not None]:
        best = max(rewarded, key=lambda entry: entry["reward"])
        found.append(Sample("tree", prompt | {"answer": best["answer"]}, _tree(record, best)))
    judged = [place for place in entries if place[:2] in replies]
    if judged:
        index, visit, entry = judged[0]
        said = dict(sorted(replies[index, visit].items()))  # they came in any order
        found.append(
            Sample("judgement", prompt | {"answer": entry["answer"]} | said, _scores(entry))
        )
    return found


def _tree(record: TreeRecord, best: Mapping[str, Any]) -> dict[str, float | None]:
    root = record.nodes[0]
    return _scores(best) | {
        "tree_value": root.value,
        "nodes": len(record.nodes),
        "visits": root.visits,
        "missing": root.missing,
    }


def _scores(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: entry.get(name) for name in ("reward", "helpfulness", "safety")}
