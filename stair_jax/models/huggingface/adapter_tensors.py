"""The tensors of an adapter folder: which kernel's adapter each one is (a part of).

A module of the base with an adapter has two tensors in PEFT's format, [rank, inputs] and
[outputs, rank]. Here all adapters of a model have one rank and one scale: smaller ones are filled
up with zeros, which stay zeros when they are trained, and where a scale differs it goes into the
second half. The kernels of a module that several of them make up (of phi3) have its first half each
and their own rows of the second. Of our own such modules the halves are blocks, one per kernel.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stair_jax.adapter_folders import CONFIG_FILE, TENSORS_FILE, base_record
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.config_values import shown
from stair_jax.models.huggingface.adapter_config import AdapterConfig
from stair_jax.models.huggingface.adapter_rows import TENSORS as ROW_TENSORS
from stair_jax.models.huggingface.adapter_rows import Tokens, check_tokens, token_ids
from stair_jax.models.huggingface.other_forms import other_forms
from stair_jax.models.huggingface.safetensors_files import CheckpointFiles, tensors_in
from stair_jax.models.huggingface.tensor_names import SCORE, kernel_modules
from stair_jax.models.lora import KERNELS, Lora

PREFIX = "base_model.model."
ADAPTER_SCORE = PREFIX + SCORE
# Adapters of several ranks may grow by this factor, and to so many numbers in any case.
_FILLING = 8
_MOST_FILLED = 2**28
_NAME = re.compile(
    re.escape(PREFIX) + r"(model\.layers\.(\d{1,6})\.([a-z_.]{1,40}))\.lora_([AB])\.weight"
)


class AdapterFiles(CheckpointFiles):
    """The tensors of an adapter folder by name."""

    def __init__(self, folder: str | Path):
        """Reads the header of the file.

        Raises:
            UserError: it is missing or damaged, or of a form that is not read.
        """
        self.folder = Path(folder)
        path = self.folder / TENSORS_FILE
        if not path.is_file():
            names = sorted(path.name for path in self.folder.iterdir())
            raise UserError(other_forms(self.folder, names) or f"there is no file {path}")
        self.tensors = tensors_in(path)


class Piece(NamedTuple):
    """The adapter of one kernel in one layer.

    Attributes:
        target: the kernel.
        layer: its layer.
        module: name of the module that holds it, with that of the layer.
        ranks: the rows of the first half, and columns of the second.
        rows: of the second half.
        factor: what the second half is multiplied by.
    """

    target: str
    layer: int
    module: str
    ranks: slice
    rows: slice
    factor: float


@dataclass(frozen=True)
class AdapterTensors:
    """The adapters of a folder.

    Attributes:
        files: the tensors.
        lora: rank, scale and targets.
        pieces: where each adapter is.
        dropout: see `AdapterConfig`.
        tokens: those with rows of their own in each table.
    """

    files: AdapterFiles
    lora: Lora
    pieces: Sequence[Piece]
    dropout: float
    tokens: Tokens

    @classmethod
    def of(cls, folder: Path, config: ModelConfig) -> "AdapterTensors":
        """Reads the description of a folder's adapters, and the header of its tensors.

        Args:
            folder: of the adapters.
            config: of the base.

        Raises:
            UserError: names what is damaged, missing, not expected or not supported.
        """
        described, files = AdapterConfig.read(folder), AdapterFiles(folder)
        modules = _modules(files, config)
        _check(files, modules, described, config)
        scales = [described.scale, *map(described.scale_of, modules)]
        scale = next(filter(None, scales), 0.0)
        own = base_record(folder).get("targets") or ()
        pieces = [
            piece
            for name, module in modules.items()
            for piece in _pieces(name, module, described, scale, own)
        ]
        tokens = check_tokens(files, described.tokens, config, str(described.path))
        found = {piece.target for piece in pieces}
        rank = max(piece.ranks.stop - piece.ranks.start for piece in pieces)
        targets = tuple(name for name in KERNELS if name in found)
        lora = Lora(rank, scale, targets, token_ids=token_ids(tokens))
        _check_filling(files, lora, config)
        return cls(files, lora, pieces, described.dropout, tokens)

    def as_asked(self, asked: Lora) -> "AdapterTensors":
        """The same adapters, to be multiplied by another scale and kept in another dtype.

        Raises:
            UserError: the ranks or targets differ.
        """
        own = self.lora
        if (own.rank, own.targets, own.token_ids) != (asked.rank, asked.targets, asked.token_ids):
            raise UserError(
                f"the adapters in {self.files.folder} are of rank {own.rank} beside "
                f"{', '.join(own.targets)} with rows of {len(own.token_ids)} tokens, and rank "
                f"{asked.rank} beside {', '.join(asked.targets)} with rows of "
                f"{len(asked.token_ids)} is asked for"
            )
        change = 1.0 if own.scale == asked.scale else own.scale / asked.scale
        pieces = [piece._replace(factor=piece.factor * change) for piece in self.pieces]
        return replace(self, lora=asked, pieces=pieces)

    def read(self, target: str, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
        """The adapters of one kernel in all layers, as `models/lora.py` has them, in float32.

        Raises:
            UserError: a value is not finite.
        """
        outputs, inputs = _shape(target, config)
        depth, rank = config.num_hidden_layers, self.lora.rank
        a = np.zeros((depth, inputs, rank), np.float32)
        b = np.zeros((depth, rank, outputs), np.float32)
        for piece in (each for each in self.pieces if each.target == target):
            used = slice(0, piece.ranks.stop - piece.ranks.start)
            name = f"{PREFIX}{piece.module}.lora_"
            a[piece.layer, :, used] = self._read(f"{name}A.weight", piece.ranks, slice(0, inputs)).T
            second = self._read(f"{name}B.weight", piece.rows, piece.ranks).T
            b[piece.layer, used] = second if piece.factor == 1 else second * piece.factor
        return a, b

    def _read(self, name: str, *index: slice) -> np.ndarray:
        return self.files.read(name, index, "float32")


class Module(NamedTuple):
    """A linear module with an adapter.

    Attributes:
        layer: its layer.
        kernels: those that it holds, with their shapes [outputs, inputs].
    """

    layer: int
    kernels: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Of its weight, [outputs, inputs]."""
        return sum(shape[0] for _, shape in self.kernels), self.kernels[0][1][1]


def _modules(files: AdapterFiles, config: ModelConfig) -> dict[str, Module]:
    """The modules that have adapters, by name.

    Raises:
        UserError: a tensor is no adapter of the model, or only one of its halves is there.
    """
    known, found = kernel_modules(config), dict[str, Module]()
    for name in sorted(set(files.tensors) - {ADAPTER_SCORE, *ROW_TENSORS.values()}):
        match = _NAME.fullmatch(name)
        if match is None or match[3] not in known or int(match[2]) >= config.num_hidden_layers:
            raise UserError(
                f"{files.folder} has tensor {shown(name)}, which is no adapter of a linear layer "
                f"of its base{_about(name)}"
            )
        other = f"{PREFIX}{match[1]}.lora_{'B' if match[4] == 'A' else 'A'}.weight"
        if other not in files:
            raise UserError(f"{files.folder} lacks tensor {other}, the other half of {name}")
        found[match[1]] = Module(int(match[2]), known[match[3]])
    if not found:
        raise UserError(f"{files.folder} has no adapters in {TENSORS_FILE}")
    return found


def _about(name: str) -> str:
    if "lora_embedding" in name or "embed_tokens" in name or "lm_head" in name:
        return ": embedding and head are not adapted here; merge it with peft"
    if "lora_magnitude" in name:
        return ": DoRA is not supported; merge it with peft"
    return ""


def _check(
    files: AdapterFiles,
    modules: Mapping[str, Module],
    described: AdapterConfig,
    config: ModelConfig,
) -> None:
    """Checks modules and shapes against `adapter_config.json`.

    Raises:
        UserError: names what is missing, not expected, or of a wrong shape.
    """
    everywhere = (
        f"model.layers.{layer}.{suffix}"
        for layer in range(config.num_hidden_layers)
        for suffix in kernel_modules(config)
    )
    wanted = {name for name in everywhere if described.wants(name)}
    if missing := sorted(wanted - set(modules)):
        raise UserError(
            f"{files.folder} lacks the adapter of {missing[0]}, which target_modules in "
            f"{CONFIG_FILE} names"
        )
    if described.targets is not None and (surplus := sorted(set(modules) - wanted)):
        raise UserError(
            f"{files.folder} has an adapter of {surplus[0]}, which {CONFIG_FILE} does not name"
        )
    for name, module in modules.items():
        rank, (outputs, inputs) = described.rank_of(name), module.shape
        for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            files.check(f"{PREFIX}{name}.lora_{half}.weight", shape, f"{CONFIG_FILE} and the base")


def _check_filling(files: AdapterFiles, lora: Lora, config: ModelConfig) -> None:
    """Raises a UserError if filling up smaller ranks takes far more memory than all tensors."""
    there = sum(math.prod(stored.shape) for stored in files.tensors.values())
    sizes = [sum(_shape(target, config)) for target in lora.targets]
    filled = config.num_hidden_layers * lora.rank * sum(sizes)
    if filled > max(_MOST_FILLED, _FILLING * there):
        raise UserError(
            f"{files.folder} has adapters of ranks up to {lora.rank}, which take "
            f"{4 * filled / 2**30:.1f} GiB filled up to one rank: merge them with peft's "
            "merge_and_unload(), and name the result"
        )


def _pieces(
    name: str, module: Module, described: AdapterConfig, scale: float, own: Sequence[str]
) -> Iterator[Piece]:
    """The adapters of a module's kernels.

    Args:
        name: of the module.
        module: the module.
        described: the adapters.
        scale: the one that all of them get.
        own: the kernels with adapters, of a folder that was written here.

    Raises:
        UserError: the rank is no multiple of the number of blocks.
    """
    rank, factor, row = described.rank_of(name), 1.0, 0
    if (apart := described.scale_of(name)) != scale:
        factor = apart / scale
    blocks = [target for target, _ in module.kernels if target in own]
    if len(module.kernels) == 1 or not blocks:
        blocks = []
    elif rank % len(blocks):
        raise UserError(f"{described.path} is damaged: rank {rank} of {name} for {blocks}")
    size = rank // max(1, len(blocks))
    for target, (outputs, _) in module.kernels:
        rows, row = slice(row, row + outputs), row + outputs
        if not blocks:
            yield Piece(target, module.layer, name, slice(0, rank), rows, factor)
        elif target in blocks:
            start = blocks.index(target) * size
            yield Piece(target, module.layer, name, slice(start, start + size), rows, factor)


def _shape(target: str, config: ModelConfig) -> tuple[int, int]:
    """[outputs, inputs] of a kernel as a matrix."""
    kernels = (part for parts in kernel_modules(config).values() for part in parts)
    outputs, inputs = next(shape for name, shape in kernels if name == target)
    return outputs, inputs
