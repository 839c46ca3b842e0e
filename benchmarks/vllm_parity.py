"""Whether vLLM answers and scores as stair_jax does, from what it exported.

    JAX_PLATFORMS=cpu python -m benchmarks.vllm_parity --policy=runs/pocket/policy/hf \
        --prm=runs/pocket/reward/hf --prompts=runs/pocket/data/prompts1.jsonl

One JSON line each of the policy and of the PRM, in float32. Answers are greedy, vLLM's through its
own chat template and text; ours come first, on the CPU, so that vLLM has the GPU to itself. Needs
vLLM beside stair_jax (0.26.0 was tried, with `VLLM_USE_FLASHINFER_SAMPLER=0`).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stair_jax import Engine, PrmScorer, Request, Sampling, load
from stair_jax.decoding.driver import run_all
from stair_jax.storage import read_jsonl
from stair_jax.text.chat import encode_prompt
from stair_jax.text.steps import TAGS, is_well_formed

MAX_LENGTH = 256
MAX_TOKENS = 96
# FlashAttention has no float32.
_VLLM = {
    "dtype": "float32",
    "attention_backend": "TRITON_ATTN",
    "max_model_len": MAX_LENGTH,
    "gpu_memory_utilization": 0.3,
    "enforce_eager": True,
    "seed": 0,
}


class Answer(NamedTuple):
    """A greedy answer.

    Attributes:
      prompt: token ids of the rendered prompt.
      tokens: sampled token ids, with the end token.
      logps: their log-probabilities.
      text: what a user sees of `tokens`.
      finish: "stop" or "length".
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    text: str
    finish: str


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True, help="folder of an exported policy")
    parser.add_argument("--prm", help="folder of an exported process reward model")
    parser.add_argument("--prompts", required=True, help="JSON lines with a field `prompt`")
    parser.add_argument("--count", type=int, default=64, help="how many of them")
    options = parser.parse_args()
    prompts = [row["prompt"] for row in read_jsonl(options.prompts)[: options.count]]
    ours = our_answers(options.policy, prompts)
    _print("policy", compare_answers(ours, vllm_answers(options.policy, prompts)))
    if options.prm:
        sequences = [answer.prompt + answer.tokens for answer in ours]
        model = load(options.prm)
        scores = PrmScorer(model.config, model.params).score(sequences)
        _print("prm", compare_scores(scores, vllm_scores(options.prm, sequences)))


def our_answers(folder: str, prompts: Sequence[str]) -> list[Answer]:
    """Greedy answers by the engine here."""
    model = load(folder)
    tokenizer = model.tokenizer
    engine = Engine(model.config, model.params, num_slots=16, max_length=MAX_LENGTH)
    sampling = Sampling(temperature=0.0, max_tokens=MAX_TOKENS, stop_ids=tokenizer.stop_ids)
    requests = [
        Request(number, tuple(encode_prompt(tokenizer, prompt)), sampling=sampling)
        for number, prompt in enumerate(prompts)
    ]
    done = run_all(engine, requests)
    answers = []
    for request in requests:
        completion = done[request.id]
        seen = [token for token in completion.tokens if token not in tokenizer.stop_ids]
        text = tokenizer.decode(seen)
        answers.append(
            Answer(request.tokens, completion.tokens, completion.logps, text, completion.finish)
        )
    return answers


def vllm_answers(folder: str, prompts: Sequence[str]) -> list[Answer]:
    """Greedy answers by vLLM's offline chat."""
    from vllm import LLM, SamplingParams

    model = LLM(folder, **_VLLM)
    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, logprobs=0)
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    answers = []
    for made in model.chat(chats, sampling, use_tqdm=False):
        best = made.outputs[0]
        pairs = zip(best.token_ids, best.logprobs, strict=True)
        logps = [seen[token].logprob for token, seen in pairs]
        tokens = tuple(best.token_ids)
        answers.append(
            Answer(
                tuple(made.prompt_token_ids), tokens, tuple(logps), best.text, best.finish_reason
            )
        )
    return answers


def vllm_scores(folder: str, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Scores of token sequences by vLLM's classification, without an activation."""
    from vllm import LLM, PoolingParams

    model = LLM(folder, runner="pooling", convert="classify", **_VLLM)
    inputs = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
    params = PoolingParams(use_activation=False)
    made = model.classify(inputs, pooling_params=params, use_tqdm=False)
    return [row.outputs.probs[0] for row in made]


def compare_answers(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, float]:
    """Counts of answers that agree, and how far their log-probabilities differ where they do."""
    pairs = list(zip(ours, theirs, strict=True))
    differences = [
        np.abs(np.subtract(one.logps, two.logps)).max()
        for one, two in pairs
        if one.tokens == two.tokens and one.tokens
    ]
    return {
        "answers": len(pairs),
        "equal_prompt_ids": sum(one.prompt == two.prompt for one, two in pairs),
        "equal_tokens": sum(one.tokens == two.tokens for one, two in pairs),
        "equal_finish": sum(one.finish == two.finish for one, two in pairs),
        "equal_tags_in_text": sum(_tags(one.text) == _tags(two.text) for one, two in pairs),
        "well_formed_text": sum(is_well_formed(two.text) for _, two in pairs),
        "largest_logp_difference": float(max(differences, default=float("nan"))),
    }


def compare_scores(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How far scores differ, and whether the best of all is the same."""
    return {
        "scores": len(ours),
        "largest_difference": float(np.abs(np.subtract(ours, theirs)).max()),
        "same_best": float(np.argmax(ours) == np.argmax(theirs)),
    }


def _tags(text: str) -> list[int]:
    return [text.count(tag) for tag in TAGS]


def _print(name: str, figures: Mapping[str, float]) -> None:
    print(json.dumps({"name": f"vllm_parity/{name}", **figures}), flush=True)


if __name__ == "__main__":
    main()
