"""Losses and gradients of adapters against torch and PEFT."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

from stair_jax.data.packing import Example
from stair_jax.models import lora
from stair_jax.models.huggingface import load_config, load_params
from stair_jax.training.batches import Batches, Group
from stair_jax.training.objectives import DpoObjective, PrmObjective, SftObjective
from stair_jax.training.step import micro_at

RANK, ALPHA, BETA, SFT_WEIGHT = 4, 6.0, 0.3, 0.2
TOKENS = (3, 7, 11, 30)
MODULES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
PARTS = {name: module.partition(".")[2] for name, module in MODULES.items()}
CASES = {
    "llama": {"use_rslora": False},
    "qwen2": {"use_rslora": True},
    "qwen2_tied": {"use_rslora": False, "trainable_token_indices": list(TOKENS)},
    "llama3": {
        "use_rslora": True,
        "trainable_token_indices": {"embed_tokens": list(TOKENS), "lm_head": list(TOKENS)},
    },
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, make_checkpoint):
    """(config, frozen and trained parameters, PEFT's model), adapters and rows drawn at random."""
    folder, _ = make_checkpoint(request.param)
    options = CASES[request.param]
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    modules = [*PARTS.values()]
    about = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules, **options)
    model = get_peft_model(base, about)
    for name, values in model.named_parameters():
        if values.requires_grad:
            values.data.normal_(std=0.1 if "lora" in name else 0.3)
    config = load_config(folder)
    scale = ALPHA / (RANK**0.5 if options["use_rslora"] else RANK)
    ids = TOKENS if "trainable_token_indices" in options else ()
    adapters = lora.Lora(RANK, scale, token_ids=ids)
    trained = ours(config, dict(model.named_parameters()))
    frozen = load_params(folder, config)
    return dataclasses.replace(config, lora=adapters), frozen, trained, model


def ours(config, named):
    """PEFT's parameters (or their gradients) in our layout."""

    def get(ending):
        (found,) = [value for name, value in named.items() if name.endswith(ending)]
        return np.asarray(found.detach())

    def stacked(name, half):
        layers = range(config.num_hidden_layers)
        return np.stack(
            [get(f"layers.{i}.{MODULES[name]}.lora_{half}.default.weight").T for i in layers]
        )

    heads = {"query": config.num_attention_heads}
    heads |= dict.fromkeys(("key", "value"), config.num_key_value_heads)
    layers = {}
    for name in lora.KERNELS:
        a, b = stacked(name, "A"), stacked(name, "B")
        if name == "out":
            a = a.reshape(len(a), config.num_attention_heads, config.head_dim, RANK)
        if name in heads:
            b = b.reshape(len(b), RANK, heads[name], config.head_dim)
        layers |= {name + lora.A: a, name + lora.B: b}
    delta = "token_adapter.trainable_tokens_delta.default"
    rows = {"embedding_rows": f"embed_tokens.{delta}", "head_rows": f"lm_head.{delta}"}
    present = {ours: name for ours, name in rows.items() if any(n.endswith(name) for n in named)}
    return {"layers": layers} | {ours: get(name) for ours, name in present.items()}


def assert_equal(found, loss, config, model, expected):
    """The same loss and gradients, up to 1e-5 of the norm of each array."""
    model.zero_grad(set_to_none=True)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    wanted = ours(config, named)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for near, far in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(near - far) <= 1e-5 * np.linalg.norm(far) > 0


def sequences(count):
    """Random sequences with the tokens that have rows of their own, and where they count from."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(6, 12, count)
    tokens = [[*rng.permutation(TOKENS)[:3], *rng.integers(0, 32, n - 3)] for n in lengths]
    return [([int(token) for token in rng.permutation(row)], 2) for row in tokens]


def batch_of(found, width, values=()):
    examples = [Example(row, [0] * start + [1] * (len(row) - start)) for row, start in found]
    groups = [
        Group(str(i), tuple(examples[i : i + width]), dict(values))
        for i in range(0, len(examples), width)
    ]
    return micro_at(Batches(groups, len(groups), 24, 4)[0].arrays["micro"], 0)


def num_chunks(config):
    """Several for one family, the whole logits for the other."""
    return 3 if config.qkv_bias else 1


def differentiate(objective, frozen, trained, micro):
    @jax.jit
    @jax.value_and_grad
    def loss(trained):
        sums = objective(lora.join(frozen, trained), micro)
        return sums.loss / sums.weight

    value, gradients = jax.device_get(loss(trained))
    return gradients, float(value)


def torch_logps(model, row, start):
    """Log-probabilities of the tokens from `start` on."""
    logits = model(torch.tensor([row])).logits[0, :-1]
    chosen = functional.log_softmax(logits, -1).gather(-1, torch.tensor(row[1:])[:, None])
    return chosen[start - 1 :, 0]


def test_sft(pair):
    config, frozen, trained, model = pair
    rows = sequences(3)
    logps = torch.cat([torch_logps(model, *row) for row in rows])
    objective = SftObjective(config, num_chunks(config))
    found = differentiate(objective, frozen, trained, batch_of(rows, 1))
    assert_equal(*found, config, model, -logps.mean())


def test_dpo(pair):
    config, frozen, trained, model = pair
    rows = sequences(4)
    reference = {"ref_chosen": -20.0, "ref_rejected": -22.0}
    losses = []
    for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
        better, worse = torch_logps(model, *chosen), torch_logps(model, *rejected)
        margin = BETA * (better.sum() + 20 - worse.sum() - 22)
        losses.append(-functional.logsigmoid(margin) - SFT_WEIGHT * better.mean())
    objective = DpoObjective(config, BETA, SFT_WEIGHT, num_chunks(config))
    found = differentiate(objective, frozen, trained, batch_of(rows, 2, reference))
    assert_equal(*found, config, model, torch.stack(losses).mean())


def test_prm(pair):
    config, frozen, trained, model = pair
    rows = sequences(4)
    head = np.random.default_rng(2).normal(size=config.hidden_size).astype(np.float32)
    model.zero_grad()
    kernel = torch.tensor(head, requires_grad=True)

    def score(row):
        hidden = model.base_model.model.model(torch.tensor([row])).last_hidden_state
        return hidden[0, -1] @ kernel

    scores = [score(row) for row, _ in rows]
    losses = [-functional.logsigmoid(a - b) for a, b in zip(scores[::2], scores[1::2], strict=True)]
    expected = torch.stack(losses).mean()
    unused = ("head", "head_rows")
    kept, moving = (
        {name: value for name, value in tree.items() if name not in unused}
        for tree in (frozen, trained)
    )
    gradients, loss = differentiate(
        PrmObjective(config),
        {"model": kept},
        {"model": moving, "score": {"kernel": jnp.asarray(head)}},
        batch_of(rows, 2),
    )
    by_head = gradients.pop("score")["kernel"]
    assert_equal(gradients["model"], loss, config, model, expected)
    assert np.linalg.norm(by_head - kernel.grad.numpy()) <= 1e-5 * np.linalg.norm(by_head)
