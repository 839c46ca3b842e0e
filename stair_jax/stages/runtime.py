"""`config.runtime`: the devices of a run and how they are used; never what is computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.sharding import Mesh

from stair_jax.models.paged_attention import get_paged_backend
from stair_jax.parallel.mesh import MeshShape, batch_devices
from stair_jax.settings import read_settings, require

_MESHES = ("training_mesh", "decoding_mesh")


@dataclass(frozen=True)
class Runtime:
    """Fields of `config.runtime`; they change the cost of a run, and its results by rounding only.

    Attributes:
      slots: sequences decoded side by side; a multiple of data x fsdp of `decoding_mesh`.
      trees_in_flight: trees of a search that grow side by side.
      page_size: tokens of a page of the cache: small pages waste less, large ones are read faster.
      cache_tokens: whose keys and values the cache holds; 0: what fits beside the weights, on CPUs
        twice what the slots may need. What runs short is computed again.
      prefill_rows: rows of one prefill, each `prefill_width` tokens of some prompt; a multiple of
        data x fsdp of `decoding_mesh`.
      prefill_width: see above.
      steps_per_call: tokens that a slot may sample between two looks at the results.
      attention: how the cache is read: "cudnn" (GPUs, bfloat16), "ragged" (TPUs), "gather" (all);
        "": the first of these that devices and dtypes allow.
      tree_device: where the statistics of the trees are: "host", beside the devices that decode, or
        "device", on the first of them.
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
    page_size: int = 16
    cache_tokens: int = 0
    prefill_rows: int = 8
    prefill_width: int = 32
    steps_per_call: int = 8
    attention: str = ""
    tree_device: str = "host"
    compilation_cache: str | None = None
    training_mesh: MeshShape = field(default_factory=MeshShape)
    decoding_mesh: MeshShape = field(default_factory=MeshShape)
    vocab_multiple: int = 1

    def __post_init__(self) -> None:
        """Raises a UserError that names a field that cannot be."""
        for name in (
            "slots",
            "trees_in_flight",
            "page_size",
            "prefill_rows",
            "prefill_width",
            "steps_per_call",
            "vocab_multiple",
        ):
            self._require_number(name, least=1)
        self._require_number("cache_tokens", least=0)
        require(
            self.tree_device in ("host", "device"),
            f'runtime.tree_device must be "host" or "device", not {self.tree_device!r}',
        )
        if self.attention:
            get_paged_backend(self.attention)

    def _require_number(self, name: str, least: int) -> None:
        value = getattr(self, name)
        require(
            isinstance(value, int) and not isinstance(value, bool) and value >= least,
            f"runtime.{name} must be a whole number of at least {least}, not {value!r}",
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
