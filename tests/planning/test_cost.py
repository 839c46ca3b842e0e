"""FLOPs against the matrix products of the traced program, and bytes against hand-computed sums."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.models import flops, lora
from stair_jax.models.paged.backends import View, get_paged_backend
from stair_jax.models.serving import fused_params, paged_forward
from stair_jax.models.transformer import apply, init_params, logical_axes, output_embedding
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.planning import cost
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.decoding import abstract_fused_params
from stair_jax.training.logps import token_logps
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import abstract_state


def shapes_of_params(config):
    return jax.eval_shape(partial(init_params, config), jax.random.key(0))


def counted(function, *arguments):
    """FLOPs of the matrix products of a traced function; a scan's body counts per iteration."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = np.prod([left[axis] for axis in contracted])
            total += 2 * int(np.prod(equation.outvars[0].aval.shape) * depth)
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += turns * _count(inner)
    return total


def square_attention(config, rows):
    """FLOPs that the attention computes beyond the causal triangle."""
    width = config.num_attention_heads * config.head_dim
    unseen = rows.count * (rows.length**2 - rows.length * (rows.length + 1) // 2)
    return 4 * config.num_hidden_layers * width * unseen


@pytest.mark.parametrize("tied", [False, True])
def test_forward_and_training_flops_are_those_of_the_program(config, tied):
    config = dataclasses.replace(config, tie_word_embeddings=tied)
    rows = flops.RowShape(2, 8, logits=8)
    params = shapes_of_params(config)
    tokens = jnp.zeros((rows.count, rows.length), jnp.int32)

    def loss(params):
        hidden = apply(config, params, tokens, tokens)
        return token_logps(hidden, output_embedding(params, config), tokens).sum()

    beyond = square_attention(config, rows)
    assert counted(loss, params) == flops.forward_flops(config, rows) + beyond
    assert counted(jax.grad(loss), params) == flops.training_flops(config, rows) + 3 * beyond


def test_training_flops_of_adapters_are_those_of_the_program(config):
    """Two thirds of full training's for kernels and head, whose gradients are left out."""
    config = dataclasses.replace(config, lora=lora.Lora(5, 2.0, ("query", "value", "out", "down")))
    rows = flops.RowShape(2, 8, logits=8)
    frozen, trained = lora.split(shapes_of_params(config))
    tokens = jnp.zeros((rows.count, rows.length), jnp.int32)

    def gradients(frozen, trained):
        def loss(trained):
            params = lora.join(frozen, trained)
            hidden = apply(config, params, tokens, tokens)
            return token_logps(hidden, output_embedding(params, config), tokens).sum()

        return jax.grad(loss)(trained)

    needed = flops.training_flops(config, rows)
    assert counted(gradients, frozen, trained) == needed + 3 * square_attention(config, rows)
    whole = flops.training_flops(dataclasses.replace(config, lora=None), rows)
    kernels = 2 * 16 * flops.layer_params(config) + 2 * 16 * 40 * 16
    assert needed == whole - kernels + 6 * 16 * flops.adapter_params(config)


def test_decode_flops_are_those_of_the_model_with_a_full_context(config):
    slots, context, page_size = 5, 32, 16  # one block of pages: the loop runs once
    backend = get_paged_backend("gather")
    serve = partial(fused_params.fuse_params, config, stacked=False)
    fused = jax.eval_shape(serve, shapes_of_params(config))
    pages = [backend.empty(config, 1 + 2 * slots, page_size, 1, "float32")] * 3
    table = 1 + np.arange(2 * slots).reshape(slots, 2)
    view = View(table, np.full(slots, context - 1), np.ones(slots, np.int32))

    def step(fused):
        tokens = jnp.zeros((slots, 1), jnp.int32)
        hidden, _ = paged_forward.forward(config, fused, backend, tokens, pages, view)
        return paged_forward.logits(config, fused, hidden[:, 0])

    assert counted(step, fused) == flops.decode_flops(config, slots, context, steps=1)


@pytest.mark.parametrize(("weights", "bytes_each"), [("none", 2), ("int8", 1)])
def test_traffic_of_served_weights_by_hand(config, weights, bytes_each):
    """8-bit kernels have a float32 scale per output; fsdp gathers weights, tensor does not."""
    config = dataclasses.replace(config, dtype="bfloat16")
    mesh = make_mesh(MeshShape(fsdp=2, tensor=2), jax.devices()[:4])
    fused = abstract_fused_params(config, EngineConfig(weights=weights, attention="gather"), mesh)
    qkv, out, gate_up, down = 8 * (4 + 2 + 2), 16, 2 * 24, 16  # outputs
    kernels = 3 * (qkv * 16 + out * 8 * 4 + gate_up * 16 + down * 24) // 2 * bytes_each
    # Outputs that `tensor` splits, and those that only `fsdp` does, which are gathered again.
    scales = 3 * 4 * ((qkv + gate_up) // 2 + out + down) * (weights == "int8")
    norms = 4 * (2 * 3 * 16 + 16)
    assert cost.fused_traffic(config, fused, head=False) == kernels + scales + norms
    assert cost.fused_traffic(config, fused) == kernels + scales + norms + 2 * 40 * 16 // 2


def test_layer_params_are_the_kernels(config):
    layers = shapes_of_params(config)["layers"]
    kernels = [leaf for name, leaf in layers.items() if not name.endswith("norm")]
    assert flops.layer_params(config) == sum(leaf.size for leaf in kernels)


def test_traffic_of_weights_by_hand(config):
    """With fsdp 2 and tensor 2 a device reads half of the kernels, in bfloat16."""
    config = dataclasses.replace(config, dtype="bfloat16")
    mesh = make_mesh(MeshShape(fsdp=2, tensor=2), jax.devices()[:4])
    params = abstract_params(config, mesh)
    heads, mlp = 3 * 16 * 8 * (4 + 4 + 2 + 2), 3 * 3 * 16 * 24
    norms = 2 * 3 * 16 + 16
    head = 40 * 16
    assert cost.weights_traffic(config, params, head=False) == 2 * ((heads + mlp) // 2 + norms)
    assert cost.weights_traffic(config, params) == 2 * ((heads + mlp + head) // 2 + norms)
    # float32: a quarter of what both axes split, half of the norms, which `tensor` does not split
    stored = 4 * ((heads + mlp + 2 * head) // 4 + norms // 2)
    assert cost.local_bytes(params) == stored


def test_traffic_of_a_training_step_by_hand(config):
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    params = abstract_params(config, mesh)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    tx = make_optimizer(TrainingSettings(), 1).tx
    state = abstract_state(params, logical_axes(config), tx, mesh)
    embedding = 40 * 16  # not tied: a pass reads only some rows
    passes = 3
    read_weights = 2 * passes * 4 * (size - embedding)
    add_gradients = 2 * passes * 4 * size
    update = 4 * size + 2 * (3 * 4 * size + 4)  # the sum once; weights, two moments, the count
    assert cost.training_traffic(config, state, passes) == read_weights + add_gradients + update


def test_traffic_of_a_step_of_adapters_by_hand(config):
    """The base is read, in each pass twice; gradients and moments are those of adapters alone."""
    config = dataclasses.replace(config, dtype="bfloat16", lora=lora.Lora(2, 1.0))
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    frozen, trained = lora.split(abstract_params(config, mesh))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (frozen, trained)]
    tx = make_optimizer(TrainingSettings(), 1).tx
    state = abstract_state(trained, lora.split(logical_axes(config))[1], tx, mesh)
    passes, embedding = 3, 40 * 16
    read_weights = 2 * passes * (2 * (sizes[0] - embedding) + 4 * sizes[1])
    add_gradients = 2 * passes * 4 * sizes[1]
    update = 4 * sizes[1] + 2 * (3 * 4 * sizes[1] + 4)
    expected = read_weights + add_gradients + update
    assert cost.training_traffic(config, state, passes, frozen=frozen) == expected
