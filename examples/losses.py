"""The three losses of STAIR on a tiny model, and one gradient step on each.

    python examples/losses.py

The losses are pure functions of log-probabilities and scores: they work with any model that gives
these. Here a model of this package does, through padded batches.
"""

import functools

import jax
import jax.numpy as jnp

import stair_jax as sj
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import byte_tokenizer

# Each tag is one token. A step is a reasoning block; the output block ends an answer.
STEP = "<|Reasoning_step|>Title: Look\nIt is a sum.<|/Reasoning_step|>"
RIGHT, WRONG = (f"\n\n<|Output|>Final Answer: {sum}<|/Output|>" for sum in (4, 5))
PROMPT = "2 + 2?"


def sft(config, params, batch):
    """Mean negative log-likelihood of the answers' tokens."""
    logps = sj.batch_logps(config, params, batch)  # [N, T], 0 where no loss is taken
    total, count = sj.sft_loss(logps, batch["weights"])
    return total / count


def dpo(config, params, chosen, rejected, reference):
    """Step-level DPO with beta 0.1: two next steps after one path; a mean over pairs."""
    chosen, rejected = (
        sj.batch_logps(config, params, side).sum(axis=-1) for side in (chosen, rejected)
    )
    ref_chosen, ref_rejected = reference
    return jnp.mean(sj.step_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.1))


def prm(config, params, chosen, rejected):
    """Bradley-Terry loss of the scores of two paths; a mean over pairs."""
    chosen, rejected = (sj.batch_scores(config, params, side) for side in (chosen, rejected))
    return jnp.mean(sj.prm_loss(chosen, rejected))


def step(name, loss, params, learning_rate):
    """Prints the loss before and after one step of gradient descent."""
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    before, gradients = value_and_grad(params)
    params = jax.tree.map(lambda param, grad: param - learning_rate * grad, params, gradients)
    after, _ = value_and_grad(params)
    print(f"{name}: loss {before:.4f} before the step, {after:.4f} after it")


def main():
    """Takes the steps, each from the same random model."""
    tokenizer = byte_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size)

    rows = [{"prompt": PROMPT, "answer": STEP + RIGHT}]
    batch = sj.sft_batch(tokenizer, rows)
    step("SFT", lambda params: sft(config, params, batch), params, 0.1)

    pairs = [{"prompt": PROMPT, "path": [STEP], "chosen": RIGHT, "rejected": WRONG}]
    sides = sj.dpo_batch(tokenizer, pairs)
    # The reference is the model before the step, so that the first loss is ln 2.
    reference = [sj.batch_logps(config, params, side).sum(axis=-1) for side in sides]
    step("DPO", lambda params: dpo(config, params, *sides, reference), params, 0.01)

    pairs = [{"prompt": PROMPT, "chosen_path": [STEP, RIGHT], "rejected_path": [STEP, WRONG]}]
    sides = sj.prm_batch(tokenizer, pairs)
    head = {"kernel": jax.random.normal(jax.random.key(1), (config.hidden_size,))}
    loss = functools.partial(prm, config)
    step("PRM", lambda params: loss(params, *sides), {"model": params, "score": head}, 0.01)


if __name__ == "__main__":
    main()
