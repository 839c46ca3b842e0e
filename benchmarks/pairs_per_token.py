"""Preference pairs a million sampled tokens: the options of a search in a world of known values.

    python -m benchmarks.pairs_per_token [--prompts 48] [--num-iterations 32] [--variants a,b]

No model is needed. A prompt has hidden qualities of safety and of help, and each step adds to them.
After each step there are a few next ones, whose log-probabilities are drawn once; how far they are
apart is drawn for each prompt, so that some prompts give many duplicates. The scripted judge reads
the qualities of a final answer off the world, and errs in a share of its replies (--errors). So the
true value of a node is known: the mean reward of rollouts from it without errors of the judge.
A line `search` a variant:

    generated, iterations, evaluations   tokens, iterations and rewards a tree
    alike           share of the trees whose rewards are all alike
    pairs           sibling pairs a tree, with the thresholds of --v0, --v1 and --min-visits
    pairs_a_million pairs a million sampled tokens, steps, rollouts and judgements together
    right           share of the pairs whose true values have the same order (equal ones: half)
    right_a_million pairs a million tokens in the right order, less those in the wrong one

`pairs` and `right` have 95 % intervals over the prompts. Variants are those of `VARIANTS`;
`seed` is the default with another seed, which is the noise.
"""

import argparse
import math
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Lines
from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Request
from stair_jax.errors import UserError
from stair_jax.evaluation.bootstrap import mean_interval
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import build
from stair_jax.testing.scripted_engine import ScriptedEngine
from stair_jax.testing.tiny_tokenizers import byte_tokenizer
from stair_jax.text import judge_prompts, steps
from stair_jax.text.tokenizer import Tokenizer

Path = tuple[int, ...]
_LETTERS = "ABCDEFGH"  # the next steps that there are after any step
_ENDS = (0.0, 0.05, 0.2, 0.35, 0.5, 0.7, 1.0)  # the chance that a step is the last, by depth
_FILLER = "x" * 16
_ROLLOUTS = 200  # for the true value of a node
_TEMPERATURE = 1.2


@dataclass(frozen=True)
class Variant:
    """What differs from the default: of `more_pairs`, and of the rest of the settings."""

    more: Mapping[str, Any] = field(default_factory=dict)
    tree: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


VARIANTS = {
    "default": Variant(),
    "seed": Variant(seed=1),
    "resample": Variant({"resample": 4}),
    "reuse_rollout_step": Variant(sampling={"reuse_rollout_step": True}),
    "share_rollouts": Variant({"share_rollouts": True}),
    "share_judgements": Variant({"share_judgements": True}),
    "share_both": Variant({"share_rollouts": True, "share_judgements": True}),
    "final_terminal": Variant({"final_visits": "terminal"}),
    "final_siblings": Variant({"final_visits": "siblings"}),
    "share_siblings": Variant({"share_rollouts": True, "final_visits": "siblings"}),
    "share_siblings_resample": Variant(
        {"share_rollouts": True, "final_visits": "siblings", "resample": 4}
    ),
    "stop_8": Variant({"stop_after": 8}),
    "stop_16": Variant({"stop_after": 16}),
    "in_flight_2": Variant(tree={"in_flight": 2}),
    "c_3": Variant(tree={"c": 3.0}),
    "c_9": Variant(tree={"c": 9.0}),
    "children_2": Variant(tree={"num_children": 2}),
    "children_8": Variant(tree={"num_children": 8}),
    "root_children_8": Variant(tree={"root_children": 8}),
    "share_siblings_c_9": Variant(
        {"share_rollouts": True, "final_visits": "siblings"}, tree={"c": 9.0}
    ),
    "iterations_16": Variant(tree={"num_iterations": 16}),
    "iterations_64": Variant(tree={"num_iterations": 64}),
}


class World:
    """Prompts whose answers have known qualities, and a policy that writes them."""

    def __init__(self, seed: int, rewards: str = "paper", easy: float = 0.0):
        """Everything is drawn from the seed, a prompt and a path, when it is first asked for.

        Args:
            seed: of all draws.
            rewards: "paper": R = S H + 2 S of both scores; "release": of safety prompts S alone,
                of helpfulness prompts 2 + H, as in the released code.
            easy: share of the prompts whose answers are all safe, or all unsafe.
        """
        self._seed, self._rewards, self._easy = seed, rewards, easy
        self._nodes: dict[tuple[int, Path], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}
        self._values: dict[tuple[int, Path], float] = {}
        self._reward = SafetyReward()

    def _prompt(self, prompt: int) -> tuple[float, NDArray[Any]]:
        """How far log-probabilities are apart, and the qualities [safety, help]."""
        rng = np.random.default_rng([self._seed, prompt])
        quality = rng.normal([0.5 if prompt % 2 else 3.0, 0.0], [1.5, 1.0])
        apart = float(rng.choice([1.0, 2.0, 4.0]))
        if rng.random() < self._easy:
            quality[0] += math.copysign(6.0, quality[0])
        return apart, quality

    def next_steps(self, prompt: int, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        """(logits, whether it ends the answer) of each next step."""
        logits, ends, _ = self._node(prompt, path)
        return logits, ends

    def _node(self, prompt: int, path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        found = self._nodes.get((prompt, path))
        if found is None:
            rng = np.random.default_rng([self._seed, prompt, *(step + 1 for step in path)])
            apart, quality = self._prompt(prompt)
            if path:
                quality = self._node(prompt, path[:-1])[2] + rng.normal(0, 0.6, 2)
            logits = rng.normal(0, apart, len(_LETTERS))
            ends = rng.random(len(_LETTERS)) < _ENDS[min(len(path), len(_ENDS) - 1)]
            found = self._nodes[prompt, path] = logits, ends, quality
        return found

    def draw(
        self, rng: np.random.Generator, prompt: int, path: Path, temperature: float
    ) -> tuple[int, bool]:
        """(the next step, whether it ends the answer)."""
        logits, ends = self.next_steps(prompt, path)
        step = int(np.argmax(logits / temperature + rng.gumbel(size=len(logits))))
        return step, bool(ends[step])

    def scores(self, prompt: int, path: Path) -> tuple[float, float]:
        """(safety, rating from 1 to 5) of a final answer."""
        quality = self._node(prompt, path)[2]
        return (1.0 if quality[0] > 0 else -1.0), float(np.clip(round(3 + 1.2 * quality[1]), 1, 5))

    def value(self, prompt: int, path: Path, is_terminal: bool) -> float:
        """The true value of a node."""
        place = prompt, path
        if place not in self._values:
            rng = np.random.default_rng([self._seed + 1, prompt, *(step + 1 for step in path)])
            count = 1 if is_terminal else _ROLLOUTS
            rewards = []
            for _ in range(count):
                end, ended = path, is_terminal
                while not ended:
                    step, ended = self.draw(rng, prompt, end, _TEMPERATURE)
                    end = (*end, step)
                safety, rating = self.scores(prompt, end)
                rewards.append(self._true_reward(prompt, safety, (rating - 3) / 2))
            self._values[place] = sum(rewards) / count
        return self._values[place]

    def _true_reward(self, prompt: int, safety: float, helpfulness: float) -> float:
        if self._rewards == "release":
            safety, helpfulness = (safety, -1.0) if prompt % 2 else (1.0, helpfulness)
        return self._reward(helpfulness, safety)


class WorldReplies:
    """What the policy of a world writes, and what its judge says."""

    def __init__(self, world: World, tokenizer: Tokenizer, errors: float):
        """A step is some 28 tokens, and so is a judge's reply; `errors` of these are wrong."""
        self._world, self._tokenizer, self._errors = world, tokenizer, errors
        self._encoded: dict[str, tuple[int, ...]] = {}
        self._paths: dict[Hashable, tuple[int, Path]] = {}

    def write(self, request: Request) -> tuple[Sequence[int], Sequence[float]]:
        """A step, the rest of an answer, or a judgement."""
        assert request.sampling is not None and isinstance(request.id, tuple)
        rng = np.random.default_rng(request.key)
        text = self._tokenizer.decode(request.sequence)
        prompt = int(re.findall(r"question (\d+)\?", text)[-1])
        if "judge" in request.id:
            tokens = self._judge(rng, prompt, path_of(text), str(request.id[-1]))
        else:
            one_step = self._tokenizer.tags.reasoning_close in request.sampling.stop_ids
            tokens, path = (), path_of(text)
            while True:
                step, ends = self._world.draw(rng, prompt, path, request.sampling.temperature)
                path = (*path, step)
                tokens += self._encode(_block(path, ends))
                if one_step or ends:
                    break
        return tokens, (-1.0,) * len(tokens)

    def score(self, request: Request) -> Sequence[float]:
        """The judge rates in words alone.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the judge of this world rates in words: judge.mode 'generative'")

    def _judge(
        self, rng: np.random.Generator, prompt: int, path: Path, question: str
    ) -> tuple[int, ...]:
        safety, rating = self._world.scores(prompt, path)
        if question == "safety":
            label = "SAFE" if (safety > 0) != (rng.random() < self._errors) else "UNSAFE"
        else:
            error = rng.choice([-1, 1]) if rng.random() < self._errors else 0
            label = str(int(np.clip(rating + error, 1, 5)))
        return (*self._encode(f"I judge.\nConclusion: [{label}]"), self._tokenizer.eos_id)

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._encoded:
            self._encoded[text] = tuple(self._tokenizer.encode_answer(text))
        return self._encoded[text]


def _block(path: Path, ends: bool) -> str:
    letters = "".join(_LETTERS[step] for step in path)
    return steps.format_output(f"#{letters}#") if ends else steps.format_step(letters, _FILLER)


def path_of(text: str) -> Path:
    """The steps of the last block of a text, which names all from the first one on."""
    named = re.findall(r"Title: ([A-H]+)\n|#([A-H]+)#", text)
    return tuple(map(_LETTERS.index, "".join(named[-1]))) if named else ()


@dataclass(frozen=True)
class Setup:
    """What all variants share."""

    world: World
    flags: argparse.Namespace

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """One token a byte."""
        return byte_tokenizer()

    @property
    def thresholds(self) -> StepPairSettings:
        """Of the pairs."""
        flags = self.flags
        return StepPairSettings(v0=flags.v0, v1=flags.v1, min_visits=flags.min_visits)

    def search(self, variant: Variant) -> list[TreeRecord]:
        """A tree a prompt."""
        # The paper's questions in our words: the ratings 1 to 5, and SAFE or UNSAFE.
        judge: dict[str, Any] = {
            "mode": "generative",
            "max_tokens": 64,
            "helpfulness_template": judge_prompts.HELPFULNESS_JUDGE,
            "safety_template": judge_prompts.SAFETY_JUDGE,
        }
        both = ("helpfulness", "safety")
        is_release = self.flags.rewards == "release"
        judge["safety_prompts"] = ("safety",) if is_release else both
        judge["helpfulness_prompts"] = ("helpfulness",) if is_release else both
        settings = build(
            SearchSettings,
            {
                "tree": {"num_iterations": self.flags.num_iterations, **variant.tree},
                "sampling": {
                    "temperature": _TEMPERATURE,
                    "max_step_tokens": 64,
                    "max_answer_tokens": 400,
                    **variant.sampling,
                },
                "judge": judge,
                "more_pairs": {"final_min_visits": self.flags.min_visits, **variant.more},
            },
            "search",
        )
        prompts = [
            Prompt(f"p{i}", f"question {i}?", "safety" if i % 2 else "helpfulness", "world")
            for i in range(self.flags.prompts)
        ]
        trees: list[TreeRecord] = []
        run_search(
            prompts,
            ScriptedEngine(WorldReplies(self.world, self.tokenizer, self.flags.errors)),
            self.tokenizer,
            settings,
            variant.seed,
            trees.append,
            reward=SafetyReward(),
            trees_in_flight=len(prompts),
        )
        return trees

    def measure(self, variant: Variant) -> dict[str, Any]:
        """The figures of a line."""
        start = time.perf_counter()
        trees = self.search(variant)
        seconds = time.perf_counter() - start
        numbers: list[float] = []
        right: list[tuple[float, str]] = []
        for tree in trees:
            pairs, _ = sibling_pairs(tree, self.thresholds)
            numbers.append(float(len(pairs)))
            for pair in pairs:
                better, worse = (int(end) for end in pair.id.rsplit(":", 2)[1:])
                gap = self._value(tree, better) - self._value(tree, worse)
                right.append((0.5 * (1 + np.sign(gap)), tree.id))
        tokens = sum(tree.generated_tokens for tree in trees)
        evaluations = sum(len(node.judgements) for tree in trees for node in tree.nodes)
        agreement = sum(value for value, _ in right) / max(len(right), 1)
        million = 1e6 * sum(numbers) / tokens
        return {
            "generated": tokens / len(trees),
            "iterations": sum(tree.iterations for tree in trees) / len(trees),
            "evaluations": evaluations / len(trees),
            "alike": sum(map(_is_alike, trees)) / len(trees),
            "pairs": _interval(numbers, [tree.id for tree in trees]),
            "right": _interval([value for value, _ in right], [id for _, id in right]),
            "pairs_a_million": million,
            "right_a_million": million * (2 * agreement - 1),
            "seconds": seconds,
        }

    def _value(self, tree: TreeRecord, node: int) -> float:
        path = path_of("".join(tree.texts(tree.path(node))))
        return self.world.value(int(tree.id[1:]), path, tree.nodes[node].terminal)


def _is_alike(tree: TreeRecord) -> bool:
    return len({entry["reward"] for node in tree.nodes for entry in node.judgements}) == 1


def _interval(values: Sequence[float], ids: Sequence[str]) -> dict[str, Any] | None:
    estimate = mean_interval(values, ids)
    if estimate is None:
        return None
    return {name: round(value, 3) for name, value in vars(estimate).items()}


def main() -> None:
    """Searches with each variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--num-iterations", type=int, default=32)
    parser.add_argument("--min-visits", type=int, default=2)
    parser.add_argument("--v0", type=float, default=0.5)
    parser.add_argument("--v1", type=float, default=0.8)
    parser.add_argument("--rewards", default="paper", choices=("paper", "release"))
    parser.add_argument("--errors", type=float, default=0.1, help="share of wrong judgements")
    parser.add_argument("--easy", type=float, default=0.0, help="prompts with one verdict alone")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    flags = parser.parse_args()
    names = flags.variants.split(",")
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"--variants: {name!r} is none of {', '.join(VARIANTS)}")
    lines = Lines({name: str(value) for name, value in vars(flags).items() if name != "variants"})
    setup = Setup(World(flags.seed, flags.rewards, flags.easy), flags)
    for name in names:
        lines("search", variant=name, **setup.measure(VARIANTS[name]))


if __name__ == "__main__":
    main()
