"""A complete search over an engine with a script, and what is seen of it from outside."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.script import Lengths, Spread, judge_template, scripted_prompts
from benchmarks.scripted import OverlayEngine
from stair_jax.decoding.requests import EngineStats
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.runner import run_search
from stair_jax.search.search_context import Reward, SamplingSettings
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.search.tree_records import TreeRecord

# What a judge is asked, and R of helpfulness and safety. "sign": -1 or +1. "paper": the paper's
# scale, -3 or +3, from one question. "both": the paper's, from both questions.
REWARDS: dict[str, tuple[tuple[str, ...], Reward]] = {
    "sign": (("safety",), SafetyReward()),
    "paper": (("safety",), lambda _, safety: SafetyReward()(1.0, safety)),
    "both": (("helpfulness", "safety"), SafetyReward()),
}


@dataclass(frozen=True)
class WorkloadSizes:
    """Of the scripted search and of the shaped workload."""

    lengths: Lengths = field(default_factory=Lengths)
    prompt: int = 110
    template: int = 220
    max_step: int = 512
    max_answer: int = 1536
    max_length: int = 2048
    scale: float = 1.0  # of the lengths of the shaped workload


# By --sizes. "short": as a model of half a billion parameters writes; half of the others' tokens.
SIZES = {
    "long": WorkloadSizes(),
    "short": WorkloadSizes(Lengths(Spread(75, 25), Spread(65, 15)), scale=0.5),
    "tiny": WorkloadSizes(Lengths(Spread(16, 4, 10), Spread(14, 2, 12)), 10, 20, 40, 120, 256, 0.1),
}


@dataclass
class Watch:
    """Sees each step of a search: how full the slots are while there is enough to fill them.

    Attributes:
        engine: that is watched; it asks the watch before each step whether its time is over.
        slots: of the engine.
        is_over: answers that.
        seconds: from the start of the watch until each tree was done, in this order.
        steps: steps of the slots until then.
    """

    engine: OverlayEngine
    slots: int
    is_over: Callable[[], bool] = lambda: False
    seconds: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    _busy: int = 0
    _slot_steps: int = 0
    _before: EngineStats = field(init=False)
    _first: int = 0
    _start: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Starts the watch."""
        self._first = self.engine.stats.slot_steps
        self._before = EngineStats(**vars(self.engine.stats))
        self.engine.is_over = self._step

    def _step(self) -> bool:
        stats, before = self.engine.stats, self._before
        if self.engine.pending >= self.slots:
            self._busy += stats.busy_steps - before.busy_steps
            self._slot_steps += stats.slot_steps - before.slot_steps
        self._before = EngineStats(**vars(stats))
        return self.is_over()

    def tree(self, tree: TreeRecord) -> None:
        """To be called with each finished tree."""
        self.seconds.append(time.perf_counter() - self._start)
        self.steps.append(self.engine.stats.slot_steps - self._first)

    @property
    def full_occupancy(self) -> float:
        """Share of the slots that were busy while as many requests were pending as there are."""
        return self._busy / max(self._slot_steps, 1)

    @property
    def tail(self) -> float:
        """Share of the time that the last tenth of the trees took, after the others were done."""
        return _tail(self.seconds)

    @property
    def tail_steps(self) -> float:
        """The same of the steps: of the time, if all steps took the same."""
        return _tail(self.steps)


def _tail(reached: Sequence[float]) -> float:
    return 1 - reached[len(reached) * 9 // 10 - 1] / max(reached[-1], 1e-9) if reached else 0.0


def scripted_search(
    engine: OverlayEngine,
    sizes: WorkloadSizes,
    tree: SearchConfig,
    rewards: str,
    num_prompts: int,
    in_flight: int,
    on_tree: Callable[[TreeRecord], None],
) -> None:
    """`run_search` over prompts, judge prompts and replies of the script.

    Args:
        engine: with the script.
        sizes: of prompts and limits.
        tree: of the search.
        rewards: a name in `REWARDS`.
        num_prompts: trees.
        in_flight: trees at once.
        on_tree: gets each finished tree.
    """
    questions, reward = REWARDS[rewards]
    template = judge_template(engine.script, sizes.template)
    settings = SearchSettings(
        tree=tree,
        sampling=SamplingSettings(
            max_step_tokens=sizes.max_step, max_answer_tokens=sizes.max_answer
        ),
        judge=JudgeSettings(
            mode="generative",
            safety_prompts=questions,
            helpfulness_template=template,
            safety_template=template,
            fence=False,  # a prompt and a reply of scripted lengths, and nothing else
            ask_closing=False,
            max_tokens=sizes.max_step,
        ),
        max_prompt_tokens=2 * sizes.prompt + 32,
    )
    run_search(
        scripted_prompts(engine.script, num_prompts, sizes.prompt),
        engine,
        engine.script.tokenizer,
        settings,
        0,
        on_tree,
        reward=reward,
        trees_in_flight=in_flight,
    )
