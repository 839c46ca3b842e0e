"""Best-of-N guided by a PRM: answers of drawn lengths, sampled and scored on the same device.

    python -m benchmarks.best_of_n [--model Qwen/Qwen2.5-0.5B-Instruct] [--prompts 256] [--n 8]
    python -m benchmarks.best_of_n --tiny                  # seconds, on a CPU

Weights are random, lengths and texts are scripted (script.py, scripted.py). A line has the seconds
of the second of two runs, the first of which compiles, and the tokens/s of its answers.
"""

import argparse
import time
from pathlib import Path

import jax

from benchmarks.common import Lines, add_model_flags, make_engine, random_model, warm_up
from benchmarks.script import Lengths, Script, Spread, scripted_prompts
from benchmarks.scripted import OverlayEngine
from stair_jax import pocket
from stair_jax.decoding.requests import EngineStats
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.scorers import PrmScorer
from stair_jax.models import heads
from stair_jax.search.search_report import since
from stair_jax.text.chat import prepare_tokenizer


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--n", type=int, default=8, help="answers per prompt")
    parser.set_defaults(model="Qwen/Qwen2.5-0.5B-Instruct")
    flags = parser.parse_args()
    lengths, longest, context = Lengths(Spread(60, 20)), 600, 1024
    if flags.tiny:
        flags.slots, flags.prompts, flags.n = 8, 4, 4
        lengths, longest, context = Lengths(Spread(16, 4, 10)), 120, 256
    model = random_model(flags)
    head = heads.init_score_head(model.config, jax.random.key(1))
    prm = PrmScorer(model.config, {"model": random_model(flags).params, "score": head})
    engine = make_engine(model, flags, flags.slots, context)
    warm_up(engine)
    script = Script(prepare_tokenizer(Path(*pocket.__path__) / "base"), lengths)
    prompts = list(scripted_prompts(script, flags.prompts, 20 if flags.tiny else 110))
    settings = TestTimeSettings(n=flags.n, max_answer_tokens=longest)
    for _ in range(2):
        before, start = EngineStats(**vars(engine.stats)), time.perf_counter()
        overlay = OverlayEngine(engine, script)
        results = best_of_n(overlay, script.tokenizer, prompts, prm, settings, seed=0)
        seconds = time.perf_counter() - start
    stats = since(before, engine.stats)
    Lines(vars(flags))(
        "best_of_n",
        seconds=seconds,
        tokens_per_s=stats.busy_steps / seconds,
        occupancy=stats.occupancy,
        steps_an_answer=sum(result.generated_steps for result in results)
        / (flags.prompts * flags.n),
        checksum=float(sum(sum(result.tokens) for result in results)),
    )


if __name__ == "__main__":
    main()
