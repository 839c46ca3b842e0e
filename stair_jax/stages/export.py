"""A trained model to where the user wants it, as transformers and vLLM read it."""

from dataclasses import dataclass
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.planning.needs import Needs, Work
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.meshes import training_mesh
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.settings import setting
from stair_jax.stages.stage_needs import copy_needs
from stair_jax.stages.whole_model import lay_out_whole, written_bytes
from stair_jax.storage import read_json, write_json
from stair_jax.text.tokenizer import Tokenizer

_RECORD = "export.json"


@dataclass(frozen=True)
class Export(Stage):
    """Settings of `export`.

    Attributes:
      model: the stage whose `hf/` is exported, with its scalar head where it has one.
      path: the folder to write; it must be empty or not there yet. Empty: `hf/` of this stage.
      dtype: of the tensors; empty: as in `model`.
      form: of a model with adapters: "adapter" writes these alone, with the place of their base;
        empty or "merged" writes the whole model.
    """

    model: str = stage_input(Artifact.MODEL, Artifact.REWARD_MODEL)
    path: str = ""
    dtype: str = setting("bfloat16", choices=("", *DTYPES))
    form: str = setting("", choices=("", "adapter", "merged"), absent="")

    def check_environment(self, folder: Path) -> None:
        """Checks that `path` holds nothing of the user's."""
        if self.path:
            _check_free(Path(self.path).expanduser().absolute(), folder / _RECORD)

    def check_devices(self, context: PlanContext) -> None:
        """Checks that the mesh divides the model, and that it has adapters to be written alone."""
        model = context.model("model")
        if self.form == "adapter" and model.lora is None:
            raise UserError(
                f"export.form is adapter, and the stage {self.model} makes a whole model: leave "
                "form out"
            )
        training_mesh(context.runtime, model, devices=context.devices)

    def run(self, context: StageContext) -> None:
        """Writes the folder that `path` names, and `export.json`, which says where it is."""
        source = context.input("model") / "hf"
        dtype = self.dtype or huggingface.stored_dtype(source, of_adapters=self.form == "adapter")
        target = Path(collectives.broadcast(_claim(context.folder, self.path, dtype)))
        if self.form == "adapter":
            huggingface.copy_adapter(source, target, Tokenizer.load(source), dtype)
        else:
            self._write_whole(source, target, dtype, context.runtime)
        say(f"exported to {target} in {dtype}")

    def _write_whole(self, source: Path, target: Path, dtype: str, runtime: Runtime) -> None:
        """Writes the model; adapters are merged while it is read."""
        config, mesh = lay_out_whole(source, dtype, runtime)
        params = huggingface.load_params(source, config, mesh)
        head = None
        if huggingface.has_score_head(source):
            head = huggingface.load_score_head(source, mesh)
        huggingface.save(target, params, config, Tokenizer.load(source), head, dtype)

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """The model is read and written."""
        return copy_needs(self, context.model("model"), self.dtype or "bfloat16", work)

    def disk_bytes(self, model: ModelConfig | None) -> int:
        """The weights."""
        return written_bytes(model, self.dtype or "float32", self.form == "adapter")


def _claim(folder: Path, path: str, dtype: str) -> str:
    """The folder to write to, with a record of it in the stage's own; the first process decides.

    Raises:
      UserError: it holds files of someone else's.
    """
    if not collectives.is_main():
        return ""
    record = folder / _RECORD
    if not path:
        write_json(record, {"path": "hf", "dtype": dtype})
        return str(folder / "hf")
    target = Path(path).expanduser().absolute()
    _check_free(target, record)
    write_json(record, {"path": str(target), "dtype": dtype})
    return str(target)


def _check_free(target: Path, record: Path) -> None:
    """Checks that an export may write `target`.

    A former attempt of this stage may have written the folder; anything else is the user's.
    """
    is_ours = record.exists() and read_json(record).get("path") == str(target)
    if not is_ours and target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"export.path: {target} is there already; name another, or remove it")
