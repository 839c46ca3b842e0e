"""What the options of a search cost and change, on the pocket world, which knows the truth.

    python -m benchmarks.options --workdir runs/pocket [--prompts 48] [--variants default,seed,...]

Searches prompts of the development set (families that training saw) with the SFT model of a run of
configs/pocket.py and its settings: as they are, with another seed (the noise), and with one option
at a time. A line `search` a variant, each number with its 95 % interval over items where it is one:

    generated, prefilled, reused, calls   tokens and device calls a tree
    judged, shared                        judgements a tree, and evaluations that took one over
    pairs                                 of siblings, a tree, as the run chooses them
    better, equal                         shares of the pairs whose chosen side is really better, or
                                          as good: by the mean goodness of the final answers that
                                          were judged below each side; good is a refusal of a
                                          hazard, and the right answer to anything else
    goodness                              of all judged answers

and a line `rejudge` for each judge: the trees of the default, with each answer judged anew; the
shares of its pairs that `keep` their order, have `equal` values, or the `opposite` order.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import Lines
from stair_jax import storage
from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import request_key
from stair_jax.errors import UserError
from stair_jax.evaluation.bootstrap import mean_interval
from stair_jax.models import huggingface
from stair_jax.pocket import datasets, families
from stair_jax.pocket.oracle import outcome
from stair_jax.search.judging.judges import Judge, Judging
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree_records import Node, TreeRecord
from stair_jax.settings import build
from stair_jax.stages.search import Search
from stair_jax.text.tokenizer import Tokenizer

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """What differs from the default: fields of `config.search`, of its judge, and of the engine."""

    search: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


VARIANTS = {
    "default": Variant(),
    "seed": Variant(seed=1),
    "expected_judge": Variant(judge={"mode": "expected"}),
    "closed_8": Variant(judge={"max_tokens": 8, "ask_closing": True}),
    "closed_16": Variant(judge={"max_tokens": 16, "ask_closing": True}),
    "reuse_rollout_step": Variant(search={"reuse_rollout_step": True}),
    "share_rollouts": Variant(search={"more_pairs": {"share_rollouts": True}}),
    "share_judgements": Variant(search={"more_pairs": {"share_judgements": True}}),
    "share_judgements_seed": Variant(search={"more_pairs": {"share_judgements": True}}, seed=1),
    "resample": Variant(search={"more_pairs": {"resample": 4}}),
    "stop_4": Variant(search={"more_pairs": {"stop_after": 4}}),
    "kv_int8": Variant(engine={"kv_dtype": "int8"}),
    "weights_int8": Variant(engine={"weights": "int8"}),
    "in_flight_2": Variant(search={"in_flight": 2}),
    "in_flight_4": Variant(search={"in_flight": 4}),
}
_JUDGES = ("seed", "expected_judge", "closed_8", "closed_16")


@dataclass(frozen=True)
class World:
    """What is searched, and what is true of it.

    Attributes:
        search: the section of the run's config, without what belongs to the stage.
        pairs: how the run chooses pairs.
        prompts: to search.
        truth: rows of the evaluation set by prompt id.
        hf: folder of the model.
        context_tokens: most tokens of a sequence.
    """

    search: Mapping[str, Any]
    pairs: StepPairSettings
    prompts: Sequence[Prompt]
    truth: Mapping[str, Row]
    hf: Path
    context_tokens: int

    def settings(self, variant: Variant) -> SearchSettings:
        """Of a search."""
        judge = {**self.search["judge"], **variant.judge}
        section = {**self.search, **variant.search, "judge": judge}
        return build(Search, section, "search").search_settings

    def item(self, prompt_id: str) -> str:
        """What a prompt is about: prompts about one item are not independent."""
        return self.truth[prompt_id]["truth"]["item"] or prompt_id

    def goodness(self, prompt_id: str, answer: str) -> float:
        """1 for a final answer that the oracle finds good, else 0."""
        request = datasets.request_of(self.truth[prompt_id])
        return float(outcome(request, answer) == ("refusal" if request.hazardous else "right"))


def main() -> None:
    """Searches with each variant, and judges anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="of a run of configs/pocket.py")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--num-iterations", type=int, default=0, help="0: as the run has it")
    flags = parser.parse_args()
    lines = Lines({name: str(value) for name, value in vars(flags).items() if name != "variants"})
    world = read_world(flags.workdir, flags.prompts)
    if flags.num_iterations:
        world = replace(world, search={**world.search, "num_iterations": flags.num_iterations})
    names = flags.variants.split(",")
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"--variants: {name!r} is none of {', '.join(VARIANTS)}")
    default: list[TreeRecord] = []
    for name in names:
        trees, costs = search(world, VARIANTS[name], flags.slots)
        lines("search", variant=name, **costs, **quality(world, trees))
        if name == "default":
            default = trees
    for name in names if default else ():
        if name in _JUDGES:
            lines("rejudge", variant=name, **rejudge(world, VARIANTS[name], default, flags.slots))


def read_world(workdir: Path, num_prompts: int) -> World:
    """Reads the settings of a run; the prompts are drawn evenly from the development set.

    Raises:
        UserError: the folder holds no finished SFT stage of configs/pocket.py.
    """
    hf = workdir / "sft" / "hf"
    if not hf.is_dir():
        raise UserError(f"{hf} is missing: run configs/pocket.py with --workdir={workdir} first")
    config = storage.read_json(workdir / "config.json")
    section = {**config.get("search", {}), **config["search1"]}
    known = {*families.OPEN, *families.SEEN_FAMILIES}
    rows = [row for row in datasets.evaluation_rows("development", 24) if row["source"] in known]
    rows = [rows[index * len(rows) // num_prompts] for index in range(min(num_prompts, len(rows)))]
    pairs = {**config.get("preferences", {}), **config["pairs1"]}
    return World(
        search=section,
        pairs=StepPairSettings(
            **{name: pairs[name] for name in vars(StepPairSettings()) if name in pairs}
        ),
        prompts=[Prompt(row["id"], row["prompt"], row["kind"], row["source"]) for row in rows],
        truth={row["id"]: row for row in rows},
        hf=hf,
        context_tokens=section["context_tokens"],
    )


def _engine(world: World, variant: Variant, slots: int) -> tuple[Engine, Tokenizer]:
    config = huggingface.load_config(world.hf)
    engine = Engine(
        config,
        huggingface.load_params(world.hf, config),
        num_slots=slots,
        max_length=world.context_tokens,
        prefill_rows=16,
        **variant.engine,
    )
    return engine, Tokenizer.load(world.hf)


def search(world: World, variant: Variant, slots: int) -> tuple[list[TreeRecord], Row]:
    """One tree a prompt, in the order of the prompts, and what a tree cost."""
    engine, tokenizer = _engine(world, variant, slots)
    trees: list[TreeRecord] = []
    start = time.perf_counter()
    run_search(
        world.prompts,
        engine,
        tokenizer,
        world.settings(variant),
        variant.seed,
        trees.append,
        reward=SafetyReward(),
        trees_in_flight=len(world.prompts),
    )
    stats, count = engine.stats, len(trees)
    place = {prompt.id: index for index, prompt in enumerate(world.prompts)}
    return sorted(trees, key=lambda tree: place[tree.id]), {
        "trees": count,
        "generated": stats.generated / count,
        "prefilled": stats.prefilled / count,
        "reused": stats.reused / count,
        "calls": stats.calls / count,
        "judged": sum(tree.counts.get("judged", 0) for tree in trees) / count,
        "shared": sum(tree.counts.get("shared_judgements", 0) for tree in trees) / count,
        "seconds_with_compile": time.perf_counter() - start,
    }


def quality(world: World, trees: Sequence[TreeRecord]) -> Row:
    """Pairs a tree, and how often the oracle agrees with them."""
    numbers, agreements, goodness = [], [], []
    for tree in trees:
        own = below(tree, partial(_goodness, world, tree.id))
        pairs = _pairs(world, tree)
        numbers.append((float(len(pairs)), tree.id))
        for better, worse in pairs:
            first, second = own[better], own[worse]
            if first is not None and second is not None:
                agreements.append((first - second, tree.id))
        if own[0] is not None:
            goodness.append((own[0], tree.id))
    return {
        "pairs": _interval(world, numbers),
        "better": _interval(world, [(float(gap > 0), id) for gap, id in agreements]),
        "equal": _interval(world, [(float(gap == 0), id) for gap, id in agreements]),
        "goodness": _interval(world, goodness),
    }


def _goodness(world: World, prompt_id: str, entry: Row) -> float:
    return world.goodness(prompt_id, entry["answer"])


def below(tree: TreeRecord, value_of: Callable[[Row], float | None]) -> list[float | None]:
    """The mean of `value_of` over the evaluations of each node and of all nodes below it.

    Of the entry `reward`, these are the values of the nodes. None where no evaluation has a value.
    """
    totals = [_evaluated(node, value_of) for node in tree.nodes]
    for index in range(len(totals) - 1, 0, -1):  # children come after their parents
        count, total = totals[index]
        parent = tree.nodes[index].parent
        totals[parent] = (totals[parent][0] + count, totals[parent][1] + total)
    return [total / count if count else None for count, total in totals]


def _evaluated(node: Node, value_of: Callable[[Row], float | None]) -> tuple[int, float]:
    """Number and sum of the values of a node's own evaluations."""
    values = [value_of(entry) for entry in node.judgements]
    found = [value for value in values if value is not None]
    # The one judgement of an answer counts on each visit of its node.
    times = node.visits if node.terminal and found else 1
    return times * len(found), times * sum(found)


def _pairs(world: World, tree: TreeRecord) -> list[tuple[int, int]]:
    """(better, worse) nodes; the id of a pair is that of its tree and the two nodes."""
    pairs, _ = sibling_pairs(tree, world.pairs)
    ends = [pair.id.rsplit(":", 2)[1:] for pair in pairs]
    return [(int(better), int(worse)) for better, worse in ends]


def _interval(world: World, values: Sequence[tuple[float, str]]) -> Row | None:
    numbers = [value for value, _ in values]
    estimate = mean_interval(numbers, [world.item(prompt_id) for _, prompt_id in values])
    if estimate is None:
        return None
    rounded = {name: round(value, 4) for name, value in vars(estimate).items()}
    return rounded | {"of": len(numbers)}


def rejudge(world: World, variant: Variant, trees: Sequence[TreeRecord], slots: int) -> Row:
    """The pairs of trees under the values that another judge gives to the same answers."""
    engine, tokenizer = _engine(world, variant, slots)
    judge, reward = Judge(tokenizer, world.settings(variant).judge), SafetyReward()
    entries = {
        (tree.id, node, number): entry
        for tree in trees
        for node, at in enumerate(tree.nodes)
        for number, entry in enumerate(at.judgements)
        if not entry.get("malformed")
    }
    kinds = {prompt.id: (prompt.prompt, prompt.kind) for prompt in world.prompts}
    judgings = {}
    for place, entry in entries.items():
        key = partial(request_key, variant.seed, "rejudge", *place)
        judgings[place] = judge.requests(*kinds[place[0]], entry["answer"], key, id=(place,))
    before = engine.stats.generated
    list(run_tasks(Driver(engine), judgings.values()))
    gaps = []
    for tree in trees:
        rewards: dict[int, float | None] = {}
        for node, at in enumerate(tree.nodes):
            for number, entry in enumerate(at.judgements):
                judging = judgings.get((tree.id, node, number))
                rewards[id(entry)] = (
                    entry["reward"] if judging is None else _reward(judging, reward)
                )
        values = below(tree, partial(_by_identity, rewards))
        for better, worse in _pairs(world, tree):
            first, second = values[better], values[worse]
            if first is not None and second is not None:
                gaps.append((first - second, tree.id))
    return {
        "judgements": len(judgings),
        "generated_a_judgement": (engine.stats.generated - before) / max(len(judgings), 1),
        "keep": _interval(world, [(float(gap > 1e-6), id) for gap, id in gaps]),
        "equal": _interval(world, [(float(abs(gap) <= 1e-6), id) for gap, id in gaps]),
        "opposite": _interval(world, [(float(gap < -1e-6), id) for gap, id in gaps]),
    }


def _by_identity(rewards: Mapping[int, float | None], entry: Row) -> float | None:
    return rewards[id(entry)]


def _reward(judging: Judging, reward: SafetyReward) -> float | None:
    result = judging.result
    if result.helpfulness is None or result.safety is None:
        return None
    return float(reward(result.helpfulness, result.safety))


if __name__ == "__main__":
    main()
