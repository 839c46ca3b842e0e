"""A trained model to where the user wants it, as transformers and vLLM read it."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES
from stair_jax.models.layout import fit_to_mesh
from stair_jax.monitoring import say
from stair_jax.parallel import distributed
from stair_jax.parallel.mesh import make_mesh
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.storage import read_json, write_json
from stair_jax.text.tokenizer import Tokenizer

INPUTS = ("model",)


@dataclass(frozen=True)
class ExportSettings:
    """Settings of `export`.

    Attributes:
      model: the stage whose `hf/` is exported, with its scalar head where it has one.
      path: the folder to write; it must be empty or not there yet. Empty: `hf/` of this stage.
      dtype: of the tensors; empty: as in `model`.
    """

    model: str = ""
    path: str = ""
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        if self.dtype and self.dtype not in DTYPES:
            raise UserError(
                f"export.dtype {self.dtype!r} is unknown: choose one of {', '.join(DTYPES)}, "
                "or '' for that of the model"
            )


def run(context: StageContext) -> None:
    """Writes the folder that `path` names, and `export.json`, which says where it is."""
    settings = read_settings(ExportSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    source = context.input("model") / "hf"
    dtype = settings.dtype or huggingface.stored_dtype(source)
    target = Path(distributed.broadcast(_claim(context.folder, settings.path, dtype)))
    mesh = make_mesh(runtime.training_mesh)
    config = dataclasses.replace(huggingface.load_config(source), param_dtype=dtype)
    config = fit_to_mesh(config, mesh, math.lcm(runtime.vocab_multiple, mesh.shape["tensor"]))
    params = huggingface.load_params(source, config, mesh)
    head = None
    if huggingface.has_score_head(source):
        head = huggingface.load_score_head(source, mesh)
    huggingface.save(target, params, config, Tokenizer.load(source), head, dtype)
    say(f"exported to {target} in {dtype}")


def _claim(folder: Path, path: str, dtype: str) -> str:
    """The folder to write to, with a record of it in the stage's own; the first process decides.

    Raises:
      UserError: it holds files of someone else's.
    """
    if not distributed.is_main():
        return ""
    record = folder / "export.json"
    if not path:
        write_json(record, {"path": "hf", "dtype": dtype})
        return str(folder / "hf")
    target = Path(path).expanduser().absolute()
    # A former attempt of this stage may have written the folder; anything else is the user's.
    is_ours = record.exists() and read_json(record).get("path") == str(target)
    if not is_ours and target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"export.path: {target} is there already; name another, or remove it")
    write_json(record, {"path": str(target), "dtype": dtype})
    return str(target)
