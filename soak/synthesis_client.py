"""The process that `soak/synthesis.py` kills: a stage `synthesize` with a teacher.

python -m soak.synthesis_client BASE_URL PROMPTS FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak.payments import CONCURRENCY
from stair_jax.run.context import StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Synthesize


def settings(base_url: str) -> dict[str, Any]:
    """Of the stage, with short waits; each call has a body of its own, by its seed."""
    return {
        "prompts": "data",
        "template": "steps",
        "num_candidates": 2,
        "repair": True,
        "kinds": ("safety",),
        "judge": {"source": "rule:safety", "helpfulness_prompts": (), "probe": ""},
        "teacher_endpoint": {
            "base_url": base_url,
            "model": "fake",
            "max_requests": 10**6,
            "concurrency": CONCURRENCY,
            "retry_seconds": 0.01,
            "tries": 50,
            "sampling": {"max_tokens": 64, "seed": 0},
        },
    }


def main(arguments: Sequence[str]) -> None:
    """Runs the stage, or what is left of it."""
    base_url, prompts, place = arguments
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    stage = build(Synthesize, settings(base_url), "config.synthesize")
    runtime = build(Runtime, {}, "runtime")
    stage.run(StageContext("synthesize", runtime, 0, folder, {"prompts": Path(prompts)}))


if __name__ == "__main__":
    main(sys.argv[1:])
