"""One iteration of STAIR, from top to bottom in one file.

    python examples/one_iteration.py

SFT on structured answers; a search tree for each prompt, in which the model judges its own answers;
preference pairs of steps from the trees; one step of DPO on them.

The model is tiny and its weights are random, so it learns nothing of use: the file shows how the
parts fit. For a real model, put `stair_jax.load("Qwen/Qwen2-7B-Instruct")` in place of
`random_model()`, with a learning rate of about 1e-6 and a search of the paper's size. A run in
which something is learnt is configs/pocket.py.
"""

import re

import jax
import jax.numpy as jnp

import stair_jax as sj
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer


def answer(step, final):
    """A structured answer: reasoning steps in tags, then the output block."""
    return (
        f"<|Reasoning_step|>Title: Problem analysis\n{step}<|/Reasoning_step|>\n\n"
        f"<|Output|>Final Answer: {final}<|/Output|>"
    )


SFT_DATA = [
    {"prompt": "How do I boil an egg ?", "answer": answer("This is safe .", "Eight minutes .")},
    {"prompt": "How do I boil rice ?", "answer": answer("This is safe .", "Twelve minutes .")},
    {"prompt": "How do I pick a lock ?", "answer": answer("This is unsafe .", "Sorry , no .")},
    {"prompt": "How do I pick a pocket ?", "answer": answer("This is unsafe .", "Sorry , no .")},
]
PROMPTS = [
    sj.Prompt("egg", "How do I pick an egg ?", "helpfulness"),
    sj.Prompt("rice", "How do I boil a pocket ?", "helpfulness"),
    sj.Prompt("lock", "How do I lock a pocket ?", "safety"),
    sj.Prompt("pocket", "How do I pick rice ?", "safety"),
]
JUDGE = sj.JudgeSettings(
    # One forward pass a question: the probabilities of the verdicts after "Conclusion: [". The
    # paper has the judge reason first (mode "generative"), for which it must know how.
    mode="expected",
    helpfulness_template="Question: {prompt} Answer: {answer} Rate the help from 1 to 5 .",
    fence=False,  # sets an answer apart from the judge's own words, in more than this model knows
    safety_template="Question: {prompt} Answer: {answer} SAFE or UNSAFE ?",
    helpfulness_prompts=("helpfulness",),  # their safety counts as +1, as in the released code
    malformed=-3.0,  # reward of an answer without an output block, the least there is
)
SEARCH = sj.SearchSettings(
    tree=sj.SearchConfig(num_iterations=16, num_children=4),  # the paper: 200 iterations
    sampling=sj.SamplingSettings(max_step_tokens=24, max_answer_tokens=48),
    judge=JUDGE,
)


def random_model():
    """A random model, and a tokenizer with a token for each word above."""
    texts = [text for row in SFT_DATA for text in row.values()]
    texts += [prompt.prompt for prompt in PROMPTS] + [JUDGE.helpfulness_template]
    words = {"Conclusion:", "[", "SAFE", "UNSAFE", "1", "2", "3", "4", "5"}
    for text in texts:
        words |= set(re.sub(r"<\|.*?\|>|{.*?}", " ", text).split())  # without tags and blanks
    tokenizer = word_tokenizer(sorted(words))
    config, params = tiny_model(tokenizer.vocab_size, num_hidden_layers=1)
    return config, params, tokenizer


def fine_tune(config, params, tokenizer, num_steps=30, learning_rate=0.3):
    """SFT by plain gradient descent on all examples at once."""
    batch = sj.sft_batch(tokenizer, SFT_DATA)

    def loss(params):
        total, count = sj.sft_loss(sj.batch_logps(config, params, batch), batch["weights"])
        return total / count

    @jax.jit
    def step(params):
        value, gradients = jax.value_and_grad(loss)(params)
        return descend(params, gradients, learning_rate), value

    for number in range(num_steps):
        params, value = step(params)
        if number in (0, num_steps - 1):
            print(f"SFT step {number}: loss {value:.4f}")
    return params


def grow_trees(config, params, tokenizer):
    """One search tree a prompt, with self-reward."""
    engine = sj.Engine(config, params, num_slots=16, max_length=256)
    trees: list[sj.TreeRecord] = []
    reward = sj.SafetyReward()  # R = S H + 2 S, of the judge's safety S and helpfulness H
    sj.run_search(PROMPTS, engine, tokenizer, SEARCH, 0, trees.append, reward=reward)
    trees.sort(key=lambda tree: tree.id)  # they come in the order in which they are finished
    for tree in trees:
        print(f"tree {tree.id}: {len(tree.nodes)} nodes, mean reward {tree.nodes[0].value:.2f}")
    return trees


def make_pairs(trees):
    """Siblings whose values differ enough, the better of which is good enough."""
    thresholds = sj.StepPairSettings(v0=0.5, v1=0.8, min_visits=1)
    pairs = [pair for tree in trees for pair in sj.sibling_pairs(tree, thresholds)[0]]
    if not pairs:
        raise SystemExit("the trees have no pair: lower v0 or v1, or search more")
    first = pairs[0]
    chosen, rejected = (text.replace("\n", " ") for text in (first.chosen, first.rejected))
    print(f"{len(pairs)} preference pairs; the first of {first.id}:")
    print(f"  + {chosen}\n  - {rejected}")
    return pairs


def align(config, params, tokenizer, pairs, learning_rate=0.3, beta=0.1):
    """One step of DPO; the reference is the model that grew the trees."""
    sides = sj.dpo_batch(tokenizer, pairs)

    @jax.jit
    def logps(params):
        return [sj.batch_logps(config, params, side).sum(axis=-1) for side in sides]

    ref_chosen, ref_rejected = logps(params)

    def loss(params):
        chosen, rejected = logps(params)
        losses = sj.step_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
        margins = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        return jnp.mean(losses), jnp.mean(margins)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (before, margin), gradients = step(params)
    print(f"DPO before the step: loss {before:.4f}, margin {margin:.4f}")
    params = descend(params, gradients, learning_rate)
    (after, margin), _ = step(params)
    print(f"DPO after the step: loss {after:.4f}, margin {margin:.4f}")
    return params


def descend(params, gradients, learning_rate):
    """A step of plain gradient descent."""
    return jax.tree.map(lambda param, grad: param - learning_rate * grad, params, gradients)


def main():
    """Runs the iteration."""
    config, params, tokenizer = random_model()
    params = fine_tune(config, params, tokenizer)
    trees = grow_trees(config, params, tokenizer)
    pairs = make_pairs(trees)
    align(config, params, tokenizer, pairs)


if __name__ == "__main__":
    main()
