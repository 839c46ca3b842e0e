"""Runs SI-MCTS for many prompts at once, over one rollout engine with continuous batching."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.search.prompt_queue import PromptQueue
from stair_jax.search.search_report import SearchReport
from stair_jax.search.search_task import (
    EngineProtocol,
    ProgressListener,
    SearchOptions,
    SearchTask,
)
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree_records import TreeRecord
from stair_jax.text.tokenizer import Tokenizer

__all__ = [
    "EngineProtocol",
    "ProgressListener",
    "SearchReport",
    "SearchSettings",
    "make_queue",
    "run_search",
]


def run_search(
    prompts: Iterable[Prompt],
    engine: EngineProtocol,
    tokenizer: Tokenizer,
    settings: SearchSettings,
    seed: int,
    on_tree: Callable[[TreeRecord], None],
    progress: ProgressListener | None = None,
    **options: Any,
) -> SearchReport:
    """Searches one tree per prompt.

    Args:
      prompts: in the order in which their trees start.
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      settings: everything that the trees depend on, beside prompts, model and seed.
      seed: of the run.
      on_tree: called with each tree as soon as it is finished, in the order of completion.
      progress: told of finished trees.
      **options: fields of `SearchOptions`: `reward`, which has to be given, `trees_in_flight`,
        `device`, `done`, and others.

    Returns:
      totals. Prompts that cannot be searched are listed in `skipped` and stop nothing: empty or too
      long ones, those that fill the engine's context, those with an id that occurred before, and
      those that were given up without a reward.

    Raises:
      UserError: `device` is unknown or not available; or as `watch`.
    """
    chosen = SearchOptions(**options)
    queue = make_queue(prompts, tokenizer, settings, chosen.done, on_tree)
    task = SearchTask(queue, engine, tokenizer, settings, seed, progress, chosen)
    (report,) = run_tasks(Driver(engine, chosen.services), [task])
    return report


def make_queue(
    prompts: Iterable[Prompt],
    tokenizer: Tokenizer,
    settings: SearchSettings,
    done: Collection[str] = (),
    on_tree: Callable[[TreeRecord], None] = lambda record: None,
) -> PromptQueue:
    """The prompts of a search that get a tree; arguments as of `run_search`."""
    limits = settings.sampling.max_answer_tokens, settings.tree.max_depth
    return PromptQueue(prompts, tokenizer, settings.max_prompt_tokens, done, limits, on_tree)
