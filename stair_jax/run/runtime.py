"""`config.runtime`: the devices of a run and how they are used; never what is computed."""

import dataclasses
from dataclasses import dataclass

from jax.sharding import Mesh

from stair_jax.cluster.address import read_address
from stair_jax.errors import UserError
from stair_jax.models.paged.backends import BACKENDS
from stair_jax.parallel.mesh import MeshShape, batch_devices
from stair_jax.settings import Settings, require, setting

# Sizes that are not set: for each part of data x fsdp of the decoding mesh.
_SLOTS = {"cpu": 64, "accelerator": 256}
_PREFILL_ROWS = {"cpu": 8, "accelerator": 16}
_PREFILL_WIDTH = {"cpu": 32, "accelerator": 128}


@dataclass(frozen=True)
class Runtime(Settings):
    """Fields of `config.runtime`; they change the cost of a run, and its results by rounding only.

    Attributes:
      slots: sequences that decode side by side; a multiple of data x fsdp of `decoding_mesh`.
        0: for each part of data x fsdp 256 on accelerators, or as many as fit beside the weights,
        and 64 on CPUs.
      trees_in_flight: search trees that grow side by side; 0: three quarters of the slots.
      page_size: tokens per page of the cache: small pages waste less, large ones are read faster.
      cache_tokens: tokens whose keys and values the cache holds; 0: what fits beside the weights,
        on CPUs twice what the slots may need. What is evicted is computed again.
      judge_memory: share of the memory beside all weights that the cache of a frozen judge gets,
        which decodes beside the model that searches.
      prefill_rows: rows of one prefill, each `prefill_width` tokens of some prompt; a multiple of
        data x fsdp of `decoding_mesh`. 0: for each part 16 on accelerators, 8 on CPUs.
      prefill_width: tokens per row of a prefill; 0: 128 on accelerators, 32 on CPUs.
      steps_per_call: tokens that a slot may sample between two looks at the results.
      attention: how the cache is read: "cudnn" (GPUs, bfloat16), "ragged" (TPUs), "gather" (all);
        "": the first of these that devices and dtypes allow.
      tree_device: where the statistics of the trees are: "host", beside the devices that decode, or
        "device", on the first of them.
      compilation_cache: folder of compiled programs that the next start uses again; None: in the
        workdir; "": none.
      keep_models: "all", or "needed": of a model that every stage which reads it is done with, and
        of which a later one was made, the weights are removed from `hf/`. The stage stays finished;
        `--redo` makes its model again. Adapters stay, and the model that they belong to.
      report: whether a run that is done writes `report.html`, as `stair-jax report` does.
      training_mesh: devices of pretrain, sft, dpo and prm, see `MeshShape`; `microbatch_rows` of
        these stages must be a multiple of data x fsdp. None: fsdp over all devices, or over as
        many as divide the rows and the model.
      decoding_mesh: devices of search and evaluate: `data` splits the slots, `tensor` the heads;
        `fsdp` would put the weights together anew for each token. None: `tensor` just large enough
        that the weights take at most half of a device's memory, `data` over the rest.
      cluster: workers to whom stages that search, evaluate or synthesize deal their work:
        "local:N", N processes on this machine, or "ray://HOST:PORT", those of a Ray cluster, on
        whose machines the stages train too; "": none, this process does all. --cluster sets it.
      training_hosts: machines of `cluster` that train, as soon as there are so many; 0: those that
        are there.
      vocab_multiple: embedding and head get rows of padding up to a multiple of it, so that
        `tensor` may split them; 128 suits all meshes. The exported model has none. It must stay as
        it is while a stage is under way.
    """

    slots: int = setting(0, least=0, most=2**20)
    trees_in_flight: int = setting(0, least=0, most=2**20)
    page_size: int = setting(16, least=1, most=2**16)
    cache_tokens: int = setting(0, least=0, most=2**40)
    judge_memory: float = setting(0.25, above=0, below=1)
    prefill_rows: int = setting(0, least=0, most=2**16)
    prefill_width: int = setting(0, least=0, most=2**16)
    steps_per_call: int = setting(8, least=1, most=2**16)
    attention: str = setting("", choices=("", *sorted(BACKENDS)))
    tree_device: str = setting("host", choices=("host", "device"))
    compilation_cache: str | None = None
    keep_models: str = setting("all", choices=("all", "needed"))
    report: bool = True
    training_mesh: MeshShape | None = None
    decoding_mesh: MeshShape | None = None
    cluster: str = ""
    training_hosts: int = setting(0, least=0, most=2**16)
    vocab_multiple: int = setting(1, least=1, most=2**16)

    def __post_init__(self) -> None:
        """Raises a UserError that names a field that cannot be."""
        super().__post_init__()
        if self.cluster and read_address(self.cluster).is_local and self.training_hosts > 1:
            raise UserError(
                f"runtime.training_hosts is {self.training_hosts}, and {self.cluster} is this "
                "machine alone: leave it out, or name a Ray cluster"
            )

    def sized(self, platform: str, mesh: Mesh | None) -> "Runtime":
        """The same with a number in place of each size that is 0.

        Args:
          platform: of the devices that decode, as `jax.Device.platform` names it.
          mesh: that decodes; None: one device.

        Raises:
          UserError: slots or prefills cannot be split over the mesh; names the field to change.
        """
        kind = "cpu" if platform == "cpu" else "accelerator"
        parts = 1 if mesh is None else batch_devices(mesh)
        slots = self.slots or parts * _SLOTS[kind]
        sized = dataclasses.replace(
            self,
            slots=slots,
            trees_in_flight=self.trees_in_flight or max(1, slots * 3 // 4),
            prefill_rows=self.prefill_rows or parts * _PREFILL_ROWS[kind],
            prefill_width=self.prefill_width or _PREFILL_WIDTH[kind],
        )
        for name in ("slots", "prefill_rows"):
            require(
                getattr(sized, name) % parts == 0,
                f"runtime.{name} is {getattr(self, name)}: it must be a multiple of {parts}, "
                "data x fsdp of the mesh that decodes (runtime.decoding_mesh), or 0",
            )
        return sized
