"""What the stages that train have in common: the model, the step, the loop and the export.

A stage says what its loss is and how its data become batches; `TrainingStage` builds the model and
the objective from these, in one way for a run and for a plan.
"""

import dataclasses
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models import huggingface, lora
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.monitoring import say
from stair_jax.parallel.chips import GIB, memory_bytes
from stair_jax.parallel.mesh import batch_devices, local_rows, make_mesh
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.needs import DataSize, Needs, Work
from stair_jax.planning.program import Program
from stair_jax.planning.training import train_step
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.meshes import count_values, itemsize_of, model_shapes, training_mesh
from stair_jax.run.out_of_memory import format_bytes
from stair_jax.run.runtime import Runtime
from stair_jax.run.savings import Saving, training_savings
from stair_jax.run.stage import Artifact, Stage
from stair_jax.samples import Sample
from stair_jax.stages.stage_needs import training_needs
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training import adapters
from stair_jax.training.batches import Batch, Batches
from stair_jax.training.checks import Check
from stair_jax.training.keep import has_state
from stair_jax.training.metrics import Inspect
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.optimizers import host_memory
from stair_jax.training.settings import TrainingSettings, configure, export, is_exported
from stair_jax.training.step import Objective, TrainState, abstract_state, in_host_memory

_BEST = ("keep_best", "num_best", "checkpoint_every", "checkpoint_minutes")


@dataclass(frozen=True)
class Setup:
    """A model laid out on the mesh that trains it.

    Attributes:
      config: of the model.
      mesh: the devices.
      rows: of a micro-batch, on all devices together.
      part: which of these rows are made in this process; None: all.
      base: the folder of the model that it starts from; None: there is none.
    """

    config: ModelConfig
    mesh: Mesh
    rows: int
    part: slice | None = None
    base: Path | None = None


@dataclass(frozen=True)
class TrainingData:
    """What a stage trains on.

    Attributes:
      batches: one per step.
      inspect: called with the metrics of each step; may raise.
      held_out: batches of rows that are not trained on, for the loss; None: there are none.
      sample: samples after so many steps, see `ObservedStage`; None: there are none.
      aside: what the stage keeps for its end, such as held-out pairs.
    """

    batches: Sequence[Batch]
    inspect: Inspect | None = None
    held_out: Sequence[Batch] | None = None
    sample: Callable[[int, Params], Sequence[Sample]] | None = None
    aside: Any = None


@dataclass(frozen=True)
class TrainingStage(Stage, TrainingSettings):
    """A stage that trains the model of an earlier one, or a new one.

    Class attributes:
      STEP: name of the training step in plans.
      SHOWN: metrics that are shown with the progress.
      LOGITS: whether the loss needs logits.
    """

    LENGTH: ClassVar[str] = "epochs"
    MEMORY: ClassVar[tuple[str, ...]] = ("microbatch_rows", "max_length")
    STEP: ClassVar[str] = "training step"
    SHOWN: ClassVar[tuple[str, ...]] = ("loss",)
    LOGITS: ClassVar[bool] = True

    @property
    def split_rows(self) -> int:
        """Rows that the mesh has to divide; 0: they follow the mesh."""
        return self.microbatch_rows

    @property
    def least_rows(self) -> int:
        """Rows that a micro-batch has at least, for sequences that are compared with each other."""
        return 1

    @property
    def row_tokens(self) -> int:
        """Tokens of a row of a micro-batch."""
        return self.max_length

    @abstractmethod
    def objective(self, config: ModelConfig) -> Objective:
        """The loss."""

    @abstractmethod
    def read_data(
        self, context: StageContext, setup: Setup, params: Params, tokenizer: Tokenizer
    ) -> TrainingData:
        """The batches of the run; says what was left out."""

    @abstractmethod
    def any_batch(self, setup: Setup) -> Batch:
        """A batch of the shapes that training has."""

    def axes(self, config: ModelConfig) -> Params:
        """Logical axes of what is trained, a tree of PartitionSpecs."""
        return logical_axes(config)

    def trainable(self, params: Params, config: ModelConfig, seed: int) -> Params:
        """What is trained, of the parameters of the model."""
        return params

    def abstract_trainable(self, setup: Setup) -> Params:
        """Shapes of what is trained, on the mesh."""
        return abstract_params(setup.config, setup.mesh)

    def forward_programs(self, setup: Setup) -> list[Program]:
        """The passes without gradients that the stage makes besides the step."""
        return []

    def finish(
        self,
        context: StageContext,
        setup: Setup,
        trained: Params,
        tokenizer: Tokenizer,
        data: TrainingData,
    ) -> None:
        """Writes `hf/`."""
        self.export(context.folder, setup, trained, tokenizer)

    def export(
        self,
        folder: Path,
        setup: Setup,
        params: Params,
        tokenizer: Tokenizer,
        score_head: Any = None,
    ) -> None:
        """Writes a model as a Hugging Face folder, and ends the stage."""
        base = setup.base if setup.config.lora and self.lora.save == "adapter" else None
        export(
            folder,
            params,
            setup.config,
            tokenizer,
            score_head,
            self.hf_dtype,
            self.keep_state,
            base,
        )

    def checks(self, setup: Setup, data: TrainingData) -> Sequence[Check]:
        """What looks at the parameters while they are trained."""
        return ()

    def makes(self) -> Mapping[str, Artifact]:
        """A language model."""
        return {"hf": Artifact.MODEL}

    def planned_base(self) -> str:
        """The model that training starts from, or the base of its adapters."""
        return "model" if self.lora.rank and self.lora.save == "adapter" else ""

    def planned_model(self, inputs: Mapping[str, tuple[ModelConfig, ...]]) -> ModelConfig | None:
        """The model that training starts from, with the adapters that `hf/` has."""
        model = super().planned_model(inputs)
        if model is None:
            return None
        trained = self.lora.adapters_on(model.lora, model.vocab_size)
        return dataclasses.replace(model, lora=trained if self.lora.save == "adapter" else None)

    def run(self, context: StageContext) -> None:
        """Trains, from the newest checkpoint if there is one, and writes `hf/`."""
        if is_exported(context.folder):
            return
        from stair_jax.training.loop import (  # with Orbax, which takes long to import
            TrainingRun,
            train,
        )

        setup, params, tokenizer = self.load(context)
        sized = self.sized(setup)
        data = sized.read_data(context, setup, params, tokenizer)
        if isinstance(data.batches, Batches):
            say(f"{context.name}: {data.batches.fill()}")
            _warn_of_positions(context.name, data.batches, setup.config.max_position_embeddings)
        frozen, trained = self._split(self.trainable(params, setup.config, context.seed), setup)
        trained = train(
            TrainingRun(
                name=context.name,
                folder=context.folder,
                objective=self.objective(setup.config),
                optimizer=make_optimizer(self, len(data.batches)),
                batches=data.batches,
                mesh=setup.mesh,
                checkpoint_every=self.checkpoint_every,
                checkpoint_minutes=self.checkpoint_minutes,
                keep=self.kept,
                shown=self.SHOWN,
                checks=sized.checks(setup, data),
                frozen=frozen,
                is_lengthened=context.is_lengthened,
            ),
            trained,
            self._split(self.axes(setup.config), setup)[1],
            inspect=data.inspect,
        )
        sized.finish(context, setup, lora.join(frozen, trained), tokenizer, data)

    def _split(self, params: Params, setup: Setup) -> tuple[Params, Params]:
        """(what stays as it is, what is trained) of a tree like `trainable`."""
        if setup.config.lora is None:
            return {}, params
        return lora.split(params, adapters.num_kept(setup.config, self.lora))

    def load(self, context: StageContext) -> tuple[Setup, Params, Tokenizer]:
        """The model to start from, on its mesh."""
        hf = context.input("model") / "hf"
        model, tokenizer = huggingface.load_config(hf), Tokenizer.load(hf)
        setup = self.lay_out(model, context.runtime)
        config = adapters.with_tags(setup.config, model.lora, tokenizer)
        part = local_rows(setup.mesh, setup.rows)
        setup = dataclasses.replace(setup, config=config, part=part, base=hf)
        # Without adapters in training, those of the model are added to its kernels.
        before = model.lora if config.lora else None
        loaded = dataclasses.replace(config, lora=before)
        params = huggingface.load_params(hf, loaded, setup.mesh)
        if config.lora:
            params = adapters.start(config, self.lora, before, params, setup.mesh, context.seed)
        return setup, params, tokenizer

    def lay_out(
        self,
        model: ModelConfig,
        runtime: Runtime,
        devices: Sequence[jax.Device] | None = None,
    ) -> Setup:
        """A model on the devices that train it, by default those of the run.

        Raises:
          UserError: the mesh divides neither the model nor the rows of a micro-batch, or rows are
            longer than the model's sliding window.
        """
        model.check_length(self.row_tokens, "a row", "max_length (and row_length, if it is set)")
        mesh = training_mesh(runtime, model, self.split_rows, devices)
        rows = self.rows_on(mesh)
        return Setup(configure(model, self, mesh, runtime.vocab_multiple), mesh, rows)

    def sized(self, setup: Setup) -> Self:
        """The same settings with the rows of a micro-batch settled."""
        return dataclasses.replace(self, microbatch_rows=setup.rows)

    def programs(self, context: PlanContext) -> list[Program]:
        """The passes without gradients, and the training step."""
        setup = self.lay_out(self.start_model(context), context.runtime, context.devices)
        self._check_offload(setup)  # a plan compiles what no check has let pass
        sized = self.sized(setup)
        frozen, trained = self._split(self.abstract_trainable(setup), setup)
        step = train_step(
            self.STEP,
            setup.config,
            self.objective(setup.config),
            make_optimizer(self, 1),
            trained,
            self._split(self.axes(setup.config), setup)[1],
            sized.any_batch(setup),
            setup.mesh,
            head=self.LOGITS,
            frozen=frozen,
        )
        return [*sized.forward_programs(setup), step]

    def data_size(self, work: Work) -> DataSize | None:
        """How much there is to train on; None: that is not known."""
        return None

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """The step at its measured rate, and the state that is saved."""
        return training_needs(self, context, work)

    def savings(self, context: PlanContext) -> Sequence[Saving]:
        """Smaller micro-batches, less that is kept, smaller dtypes, adapters."""
        before = next((model.lora for model in context.models.get("model", ())), None)
        platform, count = context.devices[0].platform, len(context.devices)
        return training_savings(self, context.runtime, platform, count, before)

    def start_model(self, context: PlanContext) -> ModelConfig:
        """The model that training starts from."""
        return context.model("model")

    def check_devices(self, context: PlanContext) -> None:
        """Checks the mesh, and whether parameters and moments fit the memory.

        What gradients and activations take besides is told by a plan, which compiles the step; the
        inputs of the layers alone, which every policy keeps, are counted here.
        """
        setup = self.lay_out(self.start_model(context), context.runtime, context.devices)
        device = setup.mesh.devices.flat[0]
        self._check_micro_batch(setup, memory_bytes(device))
        self._check_offload(setup)
        if device.platform == "cpu":
            return  # its devices share the memory of the machine, and may use the disk's
        state, frozen, away = self.abstract_state(setup)
        needed, memory = local_bytes((state, frozen)) - local_bytes(away), memory_bytes(device)
        if needed > memory:
            raise UserError(
                f"parameters and moments take {needed / GIB:.1f} GiB of each device, which has "
                f"{memory / GIB:.1f}: use more devices (fsdp of runtime.training_mesh), or "
                "param_dtype and mu_dtype 'bfloat16', or second_moment 'int8' or 'factored'"
            )

    def _check_offload(self, setup: Setup) -> None:
        """Raises a UserError where moments cannot be in the memory of the host."""
        if self.offload:
            host_memory.check(setup.mesh.devices.flat[0], self.is_in_eight_bits)

    def abstract_state(self, setup: Setup) -> tuple[TrainState, Params, Any]:
        """Shapes on the mesh: of what training updates, of the parameters that it does not.

        The third is what of the first is in host memory.
        """
        frozen, trained = self._split(self.abstract_trainable(setup), setup)
        axes, tx = self._split(self.axes(setup.config), setup)[1], make_optimizer(self, 1).tx
        state = abstract_state(trained, axes, tx, setup.mesh)
        return state, frozen, in_host_memory(tx, state)

    def _check_micro_batch(self, setup: Setup, memory: float) -> None:
        """Checks that the inputs of all layers fit for a micro-batch: no size beyond compiles."""
        config, rows = setup.config, setup.rows // batch_devices(setup.mesh)
        width = config.num_hidden_layers * config.hidden_size
        needed = rows * self.row_tokens * width * jnp.dtype(config.dtype).itemsize
        if needed > memory:
            raise UserError(
                f"the activations of a micro-batch of {rows} rows of {self.row_tokens} tokens take "
                f"more than {format_bytes(needed)} of each device, which has "
                f"{format_bytes(memory)}: lower "
                + " or ".join(f"{name} ({getattr(self, name)})" for name in self.MEMORY)
            )

    def cost_fields(self) -> list[str]:
        """As usual; but which checkpoints there are matters where the best of them is used."""
        fields = super().cost_fields()
        return [field for field in fields if not (self.use_best and field in _BEST)]

    def check_lengthening(self, folder: Path) -> None:
        """Raises a UserError unless the last state was kept."""
        if not has_state(folder / "checkpoints"):
            raise UserError(
                f"the stage {folder.name} was finished without its training state (keep_state): "
                f"--redo={folder.name} trains it anew"
            )

    def reopen(self, folder: Path) -> None:
        """Takes the exported model away, whole or not at all; the last state stays."""
        before = folder / ".hf.before"
        shutil.rmtree(before, ignore_errors=True)
        if (folder / "hf").is_dir():
            (folder / "hf").rename(before)
            shutil.rmtree(before, ignore_errors=True)

    def disk_bytes(self, model: ModelConfig | None) -> int:
        """The exported model, and the checkpoints beside one that is being written."""
        kept = self.keep + 1 + (self.num_best if self.keep_best else 0) if self.saves else 0
        return self.model_bytes(model) + kept * self.state_bytes(model)

    def kept_bytes(self, model: ModelConfig | None) -> int:
        """The exported model, and the checkpoints that stay."""
        kept = int(self.keep_state) + (self.num_best if self.keep_best else 0) if self.saves else 0
        return self.model_bytes(model) + kept * self.state_bytes(model)

    def model_bytes(self, model: ModelConfig | None) -> int:
        """The exported weights: of the model, or of its adapters."""
        if model is None:
            return 0
        own = self.lora.adapters if self.lora.save == "adapter" else None
        if own and model.lora:  # those of earlier stages are exported too
            own = dataclasses.replace(own, rank=max(own.rank, model.lora.rank))
        shapes = self._trained_shapes(self._trained_config(model, own))
        return int(count_values(shapes) * itemsize_of(self.hf_dtype))

    def state_bytes(self, model: ModelConfig | None) -> int:
        """A checkpoint: what is trained, and what the optimizer keeps of it."""
        if model is None:
            return 0
        config = self._trained_config(model, self.lora.adapters)
        axes = self.axes(config)
        axes = lora.split(axes)[1] if config.lora else axes
        mesh = make_mesh(devices=jax.local_devices()[:1])
        state = abstract_state(self._trained_shapes(config), axes, make_optimizer(self, 1).tx, mesh)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))

    def _trained_config(self, model: ModelConfig, own: lora.Lora | None) -> ModelConfig:
        return dataclasses.replace(model, lora=own, param_dtype=self.param_dtype)

    def _trained_shapes(self, config: ModelConfig) -> Params:
        """Shapes of what is trained, without padding of the vocabulary."""
        shapes = jax.eval_shape(
            lambda params: self.trainable(params, config, 0), model_shapes(config)
        )
        return lora.split(shapes)[1] if config.lora else shapes

    def amount(self) -> str:
        """Epochs and batch size."""
        return f"{self.epochs:g} epochs, batches of {self.batch_size}"


def _warn_of_positions(name: str, batches: Batches, limit: int) -> None:
    """Says once if sequences are longer than those that the model was made for."""
    count, longest = batches.longer_than(limit)
    if count:
        say(
            f"{name}: warning: {count} sequences are longer than max_position_embeddings {limit} "
            f"of the model, up to {longest} tokens: its rotary angles beyond were never trained; "
            "a smaller max_length leaves them out"
        )
