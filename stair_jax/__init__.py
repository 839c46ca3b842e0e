"""STAIR (safety alignment with introspective reasoning, arXiv 2502.02384) in JAX.

The names below are what other code imports; docs/api.md says what each is. Importing the package
imports none of them: each is loaded when it is first asked for (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stair_jax.checkpoint import load, save
    from stair_jax.data.padding import dpo_batch, prm_batch, sft_batch
    from stair_jax.data.records import PathPair, Prompt, StepPair
    from stair_jax.decoding.engine import Engine
    from stair_jax.decoding.engine_config import EngineConfig
    from stair_jax.decoding.requests import Request, Sampling
    from stair_jax.errors import UserError
    from stair_jax.inference.beam_search import beam_search
    from stair_jax.inference.best_of_n import best_of_n
    from stair_jax.inference.candidates import TestTimeSettings
    from stair_jax.inference.dvts import dvts
    from stair_jax.inference.scorers import PrmScorer
    from stair_jax.models.config import ModelConfig
    from stair_jax.run.answering import answer
    from stair_jax.search.judging.judges import JudgeSettings
    from stair_jax.search.judging.reward import SafetyReward
    from stair_jax.search.kernel import actions_to, search_trees
    from stair_jax.search.preference_pairs import (
        PrmPairSettings,
        StepPairSettings,
        prm_pairs,
        sibling_pairs,
        trajectory_pairs,
    )
    from stair_jax.search.runner import run_search
    from stair_jax.search.search_context import SamplingSettings
    from stair_jax.search.settings import SearchSettings
    from stair_jax.search.tree import Expansion, SearchConfig, TracedActor
    from stair_jax.search.tree_records import TreeRecord, read_trees, write_trees
    from stair_jax.text.tokenizer import Tokenizer
    from stair_jax.training.batch_scoring import batch_logps, batch_scores
    from stair_jax.training.logps import token_logps
    from stair_jax.training.losses import prm_loss, sft_loss, step_dpo_loss

# A plain list, which type checkers and editors read.
__all__ = [
    "Engine",
    "EngineConfig",
    "Expansion",
    "JudgeSettings",
    "ModelConfig",
    "PathPair",
    "PrmPairSettings",
    "PrmScorer",
    "Prompt",
    "Request",
    "SafetyReward",
    "Sampling",
    "SamplingSettings",
    "SearchConfig",
    "SearchSettings",
    "StepPair",
    "StepPairSettings",
    "TestTimeSettings",
    "Tokenizer",
    "TracedActor",
    "TreeRecord",
    "UserError",
    "actions_to",
    "answer",
    "batch_logps",
    "batch_scores",
    "beam_search",
    "best_of_n",
    "dpo_batch",
    "dvts",
    "load",
    "prm_batch",
    "prm_loss",
    "prm_pairs",
    "read_trees",
    "run_search",
    "save",
    "search_trees",
    "sft_batch",
    "sft_loss",
    "sibling_pairs",
    "step_dpo_loss",
    "token_logps",
    "trajectory_pairs",
    "write_trees",
]

_MODULES = {
    "Engine": "stair_jax.decoding.engine",
    "EngineConfig": "stair_jax.decoding.engine_config",
    "Expansion": "stair_jax.search.tree",
    "JudgeSettings": "stair_jax.search.judging.judges",
    "ModelConfig": "stair_jax.models.config",
    "PathPair": "stair_jax.data.records",
    "PrmPairSettings": "stair_jax.search.preference_pairs",
    "PrmScorer": "stair_jax.inference.scorers",
    "Prompt": "stair_jax.data.records",
    "Request": "stair_jax.decoding.requests",
    "SafetyReward": "stair_jax.search.judging.reward",
    "Sampling": "stair_jax.decoding.requests",
    "SamplingSettings": "stair_jax.search.search_context",
    "SearchConfig": "stair_jax.search.tree",
    "SearchSettings": "stair_jax.search.settings",
    "StepPair": "stair_jax.data.records",
    "StepPairSettings": "stair_jax.search.preference_pairs",
    "TestTimeSettings": "stair_jax.inference.candidates",
    "Tokenizer": "stair_jax.text.tokenizer",
    "TracedActor": "stair_jax.search.tree",
    "TreeRecord": "stair_jax.search.tree_records",
    "UserError": "stair_jax.errors",
    "actions_to": "stair_jax.search.kernel",
    "answer": "stair_jax.run.answering",
    "batch_logps": "stair_jax.training.batch_scoring",
    "batch_scores": "stair_jax.training.batch_scoring",
    "beam_search": "stair_jax.inference.beam_search",
    "best_of_n": "stair_jax.inference.best_of_n",
    "dpo_batch": "stair_jax.data.padding",
    "dvts": "stair_jax.inference.dvts",
    "load": "stair_jax.checkpoint",
    "prm_batch": "stair_jax.data.padding",
    "prm_loss": "stair_jax.training.losses",
    "prm_pairs": "stair_jax.search.preference_pairs",
    "read_trees": "stair_jax.search.tree_records",
    "run_search": "stair_jax.search.runner",
    "save": "stair_jax.checkpoint",
    "search_trees": "stair_jax.search.kernel",
    "sft_batch": "stair_jax.data.padding",
    "sft_loss": "stair_jax.training.losses",
    "sibling_pairs": "stair_jax.search.preference_pairs",
    "step_dpo_loss": "stair_jax.training.losses",
    "token_logps": "stair_jax.training.logps",
    "trajectory_pairs": "stair_jax.search.preference_pairs",
    "write_trees": "stair_jax.search.tree_records",
}


def __getattr__(name: str) -> Any:
    """Loads a public name, once."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names too that were not loaded yet, for completion in a shell."""
    return sorted({*globals(), *__all__})
