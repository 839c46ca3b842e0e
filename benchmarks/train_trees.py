"""Step-level DPO with what pairs share laid out once, against each side as a sequence of its own.

    python -m benchmarks.train_trees --pairs runs/pocket/pairs1/dpo.jsonl [--layers 8]
    python -m benchmarks.train_trees --prompts 24        # trees of scripted lengths, see search.py
    python -m benchmarks.train_trees --tiny              # a minute, on a CPU

All pairs of the files go once through the steps that the stage would run, in both layouts, and
through plain DPO in torch on the same device: both sides padded to the longest of a micro-batch of
pairs in the order of training, gradients accumulated over the batch, log-softmax of the steps'
tokens alone. Lines: `pairs` and `tree` with pairs/s, places and padding, then `torch` and `ratio`.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import Lines, add_model_flags, model_config
from benchmarks.script import Script, judge_template, scripted_prompts
from benchmarks.scripted import OverlayEngine, instant_engine
from benchmarks.train import random_state
from stair_jax import pocket
from stair_jax.data.pairs import Pair, encode_pairs, read_pairs, step_examples
from stair_jax.data.records import StepPair, write_rows
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.preference_pairs import StepPairSettings, sibling_pairs
from stair_jax.search.runner import run_search
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.search.tree_records import TreeRecord
from stair_jax.stages.dpo import Dpo, lay_out, training_order
from stair_jax.storage import write_json
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Group
from stair_jax.training.objectives import DpoObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.step import make_train_step


def main() -> None:
    """Prints the figures as they are found; the devices are left to processes of their own."""
    flags = parse()
    if flags.child:
        measure(flags, Lines(vars(flags)), *read(flags))
        return
    os.environ["JAX_PLATFORMS"], platforms = "cpu", os.environ.get("JAX_PLATFORMS")
    rows, pairs = read(flags)
    os.environ.pop("JAX_PLATFORMS")
    if platforms is not None:
        os.environ["JAX_PLATFORMS"] = platforms
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dpo.jsonl")
        write_rows(path, rows)
        for layout in flags.layouts.split(","):
            command = [*sys.argv[1:], "--child", layout, "--pairs", str(path)]
            rates[layout] = _run("benchmarks.train_trees", *command)
        if flags.torch:
            path = Path(folder, "torch.json")
            write_json(path, for_torch(flags, rows, pairs))
            rates["torch"] = _run("benchmarks.train_torch", "--pairs", str(path))
    for name, rate in rates.items():
        if name != "tree" and "tree" in rates:
            ratio = {"name": "ratio", "of": "tree", "to": name}
            print(json.dumps(ratio | {"pairs_per_s": rates["tree"] / rate}), flush=True)


def _run(module: str, *arguments: str) -> float:
    """Pairs/s that the last line of a process says; prints it."""
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    print(run.stdout.strip() or json.dumps({"failed": run.stderr[-500:]}), flush=True)
    return json.loads(run.stdout.splitlines()[-1])["pairs_per_s"] if run.stdout else float("nan")


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.set_defaults(layers=8)
    parser.add_argument("--pairs", default="", help="dpo.jsonl of a run, comma-separated")
    parser.add_argument("--prompts", type=int, default=24, help="of scripted trees")
    parser.add_argument("--layouts", default="pairs,tree")
    parser.add_argument("--together", default="siblings", help="see Dpo of stages/dpo.py")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--chunks", type=int, default=8, help="logps_chunks")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--param-dtype", default="float32")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--torch", action="store_true", help="compare with torch")
    parser.add_argument("--torch-pairs", type=int, default=4, help="of a micro-batch of torch")
    flags = parser.parse_args()
    if flags.tiny:
        flags.layers, flags.prompts, flags.batch_size, flags.max_length = 2, 2, 16, 1024
        flags.rows = 2
    return flags


def read(flags: argparse.Namespace) -> tuple[list[StepPair], list[Pair]]:
    """The pairs, in the tokens of the pocket world: any model has these ids."""
    tokenizer = prepare_tokenizer(Path(*pocket.__path__) / "base")
    if flags.pairs:
        rows = [row for path in flags.pairs.split(",") for row in read_pairs(path, StepPair)]
    else:
        rows = scripted_pairs(Script(tokenizer), flags.prompts)
    return encode_pairs(rows, step_examples, tokenizer, flags.max_length)


def scripted_pairs(script: Script, prompts: int) -> list[StepPair]:
    """Pairs of trees of 200 iterations with the lengths of `search`, made without a model."""
    template = judge_template(script, 20)
    judge = JudgeSettings(
        safety_prompts=("safety",),
        helpfulness_template=template,
        safety_template=template,
        fence=False,  # a prompt and a reply of scripted lengths, and nothing else
        ask_closing=False,
    )
    trees: list[TreeRecord] = []
    run_search(
        scripted_prompts(script, prompts),
        OverlayEngine(instant_engine(), script),
        script.tokenizer,
        SearchSettings(tree=SearchConfig(num_iterations=200), judge=judge, max_prompt_tokens=512),
        0,
        trees.append,
        reward=SafetyReward(),
    )
    return [pair for tree in trees for pair in sibling_pairs(tree, StepPairSettings())[0]]


def measure(
    flags: argparse.Namespace, lines: Lines, rows: Sequence[StepPair], pairs: Sequence[Pair]
) -> None:
    """The line of one layout; pairs/s of all steps, the first of which was run once before."""
    settings = Dpo(
        learning_rate=1e-6,
        batch_size=flags.batch_size,
        max_length=flags.max_length,
        microbatch_rows=flags.rows,
        layout=flags.child,
        together=flags.together,
    )
    mesh = make_mesh(MeshShape())
    config = dataclasses.replace(
        model_config(flags),
        param_dtype=flags.param_dtype,
        remat=flags.remat,
        attention=flags.attention,
    )
    order = training_order(rows, settings, 0)
    values = {"ref_chosen": -1.0, "ref_rejected": -1.0}
    batches = lay_out(
        [Group(rows[index].id, pairs[index], values) for index in order],
        [rows[index] for index in order],
        settings,
    )
    tx = make_optimizer(settings, len(batches)).tx
    objective = DpoObjective(config, 0.1, 0.2, flags.chunks)
    with use_mesh(mesh):
        state, _ = random_state(config, tx, mesh)
        step = make_train_step(objective, tx, state)
        rate = jax.device_put(np.float32(1e-6), rules.replicated(mesh))
        placed = [put_batch(batch.arrays, mesh) for batch in batches[:]]
        state, _ = jax.block_until_ready(step(state, placed[0], rate))
        start = time.perf_counter()
        for arrays in placed:
            state, metrics = step(state, arrays, rate)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - start
    made = batches[:]
    positions = sum(batch.num_positions for batch in made)
    lines(
        flags.child,
        pairs=len(pairs),
        pairs_per_s=len(pairs) / seconds,
        seconds=seconds,
        steps=len(made),
        micro_batches=sum(len(batch.members) for batch in made),
        sequence_tokens=sum(len(side) for pair in pairs for side in pair),
        places=sum(batch.num_tokens for batch in made),
        padding=1 - sum(batch.num_tokens for batch in made) / positions,
        loss=float(metrics["loss"]),
    )


def for_torch(
    flags: argparse.Namespace, rows: Sequence[StepPair], pairs: Sequence[Pair]
) -> list[Any]:
    """What `train_torch --pairs` reads."""
    order = training_order(rows, Dpo(together="pairs"), 0)
    sides = [[(side.tokens, sum(side.loss_mask)) for side in pairs[index]] for index in order]
    return [model_config(flags).to_huggingface(), sides, flags.batch_size, flags.torch_pairs]


if __name__ == "__main__":
    main()
