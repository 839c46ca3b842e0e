"""`config.runtime`: the devices of a run and how they are used; never what is computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.sharding import Mesh

from stair_jax.parallel.mesh import MeshShape, batch_devices
from stair_jax.settings import read_settings, require

_MESHES = ("training_mesh", "decoding_mesh")


@dataclass(frozen=True)
class Runtime:
    """Fields of `config.runtime`; they change the cost of a run, and its results by rounding only.

    Attributes:
      slots: sequences decoded side by side; a multiple of data x fsdp of `decoding_mesh`.
      trees_in_flight: trees of a search that grow side by side.
      prefill_rows: prompts of one prefill; a multiple of data x fsdp of `decoding_mesh`.
      steps_per_call: tokens between two looks at the results.
      compilation_cache: folder of compiled programs that the next start uses again; None: in the
        workdir; "": none.
      training_mesh: devices of pretrain, sft, dpo and prm, see `MeshShape`; `microbatch_rows` of
        these stages must be a multiple of data x fsdp.
      decoding_mesh: devices of search and evaluate: `data` splits the slots, `tensor` the heads;
        `fsdp` would put the weights together anew for each token.
      vocab_multiple: embedding and head get rows of padding up to a multiple of it, so that
        `tensor` may split them; 128 suits all meshes. The exported model has none. It must stay as
        it is while a stage is under way.
    """

    slots: int = 64
    trees_in_flight: int = 64
    prefill_rows: int = 8
    steps_per_call: int = 8
    compilation_cache: str | None = None
    training_mesh: MeshShape = field(default_factory=MeshShape)
    decoding_mesh: MeshShape = field(default_factory=MeshShape)
    vocab_multiple: int = 1

    def __post_init__(self) -> None:
        """Raises a UserError that names a field that cannot be."""
        for name in (
            "slots",
            "trees_in_flight",
            "prefill_rows",
            "steps_per_call",
            "vocab_multiple",
        ):
            value = getattr(self, name)
            require(
                isinstance(value, int) and not isinstance(value, bool) and value >= 1,
                f"runtime.{name} must be a whole number of at least 1, not {value!r}",
            )

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> "Runtime":
        """Reads `config.runtime`; absent fields keep their defaults.

        Raises:
          UserError: names a field that does not exist or cannot be.
        """
        values = dict(section)
        for name in _MESHES:
            values[name] = read_settings(MeshShape, values.get(name) or {}, f"runtime.{name}")
        return read_settings(cls, values, "runtime")

    def check_decoding(self, mesh: Mesh) -> None:
        """Checks that slots and prompts can be split over `mesh`, made of `decoding_mesh`.

        Raises:
          UserError: names the field to change.
        """
        parts = batch_devices(mesh)
        for name in ("slots", "prefill_rows"):
            require(
                getattr(self, name) % parts == 0,
                f"runtime.{name} is {getattr(self, name)}: it must be a multiple of {parts}, "
                "data x fsdp of runtime.decoding_mesh",
            )
