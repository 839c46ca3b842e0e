"""What preference pairs teach, to refuse or to comply, and how much the trees say is to be gained.

A step has no final answer. What it leads to is told by the answers that were judged below it: the
share of them that refuse, by the rule of `judging/sources/refusals.py`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stair_jax.data.mixtures import Outcome
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.search.judging.sources.refusals import is_refusal
from stair_jax.search.tree_records import TreeRecord
from stair_jax.storage import read_json, write_json
from stair_jax.text.steps import OUTPUT_OPEN, breaks_output, final_answer

REGRET_FILE = "regret.json"
CLEAR = 0.5  # by so much the shares of refusals differ where a pair teaches one or the other


def refusal_shares(record: TreeRecord) -> list[float | None]:
    """For each node the share of refusals among the answers at or below it; None: there is none.

    Answers are those of rollouts and of terminal nodes that were judged, each as often as it was;
    of trees without judgements, those of terminal nodes. Malformed ones are left out.
    """
    refusals, answers = [0] * len(record.nodes), [0] * len(record.nodes)
    for index in range(len(record.nodes) - 1, -1, -1):  # children come behind their parents
        own = _answers(record, index)
        refusals[index] += sum(map(is_refusal, own))
        answers[index] += len(own)
        if index:
            parent = record.nodes[index].parent
            refusals[parent] += refusals[index]
            answers[parent] += answers[index]
    return [
        count / total if total else None for count, total in zip(refusals, answers, strict=True)
    ]


def _answers(record: TreeRecord, index: int) -> list[str]:
    node = record.nodes[index]
    found = [
        entry["answer"]
        for entry in node.judgements
        if entry.get("answer") and not entry.get("malformed")
    ]
    if node.terminal and not node.judgements:
        text = "".join(record.answer_texts(record.path(index)))
        answer = "" if breaks_output(text) else final_answer(text)
        found = [answer] if answer else []
    return found


def outcome(pair: StepPair) -> Outcome | None:
    """What a pair teaches; None: it is not known whether its sides refuse.

    It teaches to "refuse" where the share of refusals of its chosen side is larger by at least
    `CLEAR`, to "comply" where it is smaller by as much, else "neither". A side without a share
    (`chosen_refusals`) is read itself, if it holds a final answer.
    """
    chosen = _share(pair, pair.chosen, pair.chosen_refusals)
    rejected = _share(pair, pair.rejected, pair.rejected_refusals)
    if chosen is None or rejected is None:
        return None
    if abs(chosen - rejected) < CLEAR:
        return "neither"
    return "refuse" if chosen > rejected else "comply"


def _share(pair: StepPair, side: str, share: float | None) -> float | None:
    if share is not None:
        return share
    is_whole = not pair.path or OUTPUT_OPEN in side
    answer = final_answer(side) if is_whole else ""
    return float(is_refusal(answer)) if answer else None


@dataclass(frozen=True)
class Regret:
    """What is still to be gained on the prompts of one kind.

    Attributes:
      trees: in how many the answers have rewards.
      mean: over them, of the regret: the reward of the best answer in the tree less the value of
        its root, the mean over the search's visits, which favour good answers a little.
    """

    trees: int
    mean: float


def regret(record: TreeRecord) -> float | None:
    """Of one tree, see `Regret`; None: nothing in it has a reward."""
    root, rewards = record.nodes[0].value, record.rewards()
    return max(rewards) - root if rewards and root is not None else None


def mean_regrets(trees: Iterable[tuple[str, float | None]]) -> dict[str, Regret]:
    """Of each kind, from (kind, regret) of trees; those without a regret do not count."""
    found: dict[str, list[float]] = {}
    for kind, value in trees:
        if value is not None:
            found.setdefault(kind, []).append(value)
    return {kind: Regret(len(each), sum(each) / len(each)) for kind, each in sorted(found.items())}


def write_regrets(folder: Path, regrets: Mapping[str, Regret]) -> None:
    """Writes {kind: {trees, mean}} as `regret.json`."""
    write_json(folder / REGRET_FILE, {kind: asdict(each) for kind, each in regrets.items()})


def read_regrets(folders: Iterable[Path]) -> dict[str, Regret]:
    """The regrets of several stages of pairs as of one: their means weighted by their trees.

    Raises:
      UserError: a folder has no such file, or a damaged one.
    """
    found: dict[str, Regret] = {}
    for folder in folders:
        for kind, each in _read(folder / REGRET_FILE).items():
            before = found.get(kind, Regret(0, 0.0))
            trees = before.trees + each.trees
            mean = (before.trees * before.mean + each.trees * each.mean) / trees
            found[kind] = Regret(trees, mean)
    return found


def _read(path: Path) -> dict[str, Regret]:
    if not path.is_file():
        raise UserError(
            f"there is no {path}, which adaptive_rates are made of: only a stage of the kind "
            "preferences writes it; one of an older version has to be made anew, with "
            f"--redo={path.parent.name}"
        )
    values: Any = read_json(path)
    try:
        found = {k: Regret(int(each["trees"]), float(each["mean"])) for k, each in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: it holds no regrets") from error
    if any(each.trees < 1 or not math.isfinite(each.mean) for each in found.values()):
        raise UserError(f"{path} is damaged: a kind has no tree, or its mean is no number")
    return found
