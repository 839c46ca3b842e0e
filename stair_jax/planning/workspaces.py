"""Workspaces of cuDNN's attention, which XLA's compiler learns only from a GPU: accounted here.

Where a GPU is present, the compiler asks cuDNN how much scratch memory each call needs, and gives
the call a last result of so many bytes. Without one that result stays empty. `add_workspaces` puts
in what follows from the algorithm, so that buffers are assigned as on the GPU: a workspace counts
where it is at the same time as the other temporaries of a program, and not beside its peak.

The backward pass of flash attention (Dao, 2023, "FlashAttention-2", algorithm 2) adds up the
gradients of the queries over blocks of keys. cuDNN keeps these sums in float32, and one float32 a
query for the row sums of dO * O. Rows of packed segments have both for each segment that a row may
have, each as long as the whole row. Where query heads share a head of keys and values, the
gradients of these are first made for each query head, in 16 bits.

The workspaces of 11 programs on an H200 were larger by 0.02 % at most (cuDNN 9, jax 0.11.2,
2026-11-30, `benchmarks/memory.py`). Those of forward passes are below 0.2 MB, and left out.
"""

from typing import Any

from jax.extend.mlir import ir

_FLOAT32, _HALF = 4, 2  # bytes
_FORWARD = "__cudnn$fmha"
_BACKWARD = "Backward"
_STATISTICS = 3  # place of the softmax statistics among the operands of a backward pass


def add_workspaces(lowered: Any) -> None:
    """Gives each call of cuDNN's attention in a lowered program its workspace.

    Args:
      lowered: a `jax.stages.Lowered` that was lowered without a GPU; changed in place.
    """
    lowered.compiler_ir("stablehlo").operation.walk(_add_workspace)


def _add_workspace(operation: Any) -> ir.WalkResult:
    if operation.name == "stablehlo.custom_call":
        target = ir.StringAttr(operation.attributes["call_target_name"]).value
        if target.startswith(_FORWARD) and target.endswith(_BACKWARD):
            shapes = [tuple(ir.RankedTensorType(value.type).shape) for value in operation.operands]
            size = backward_bytes(shapes[0], shapes[1], shapes[_STATISTICS])
            workspace = operation.results[len(operation.results) - 1]
            with ir.Location.unknown(operation.context):
                byte = ir.IntegerType.get_unsigned(8)
                workspace.set_type(ir.RankedTensorType.get([size], byte))
    return ir.WalkResult.ADVANCE


def backward_bytes(
    query: tuple[int, ...], key: tuple[int, ...], statistics: tuple[int, ...]
) -> int:
    """Bytes of the workspace of a backward pass.

    Args:
      query: shape of the queries, `[rows, T, heads, head_dim]`.
      key: shape of the keys, `[rows, S, kv_heads, head_dim]`.
      statistics: shape of the softmax statistics, `[rows x segments, heads, T]`.
    """
    sequences, heads, length = statistics
    sums = _FLOAT32 * sequences * heads * length * (query[-1] + 1)
    rows, keys, kv_heads, head_dim = key
    shared = 0 if kv_heads == heads else 2 * _HALF * rows * keys * heads * head_dim
    return sums + shared
