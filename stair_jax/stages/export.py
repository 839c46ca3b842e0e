"""A trained model to where the user wants it, as transformers and vLLM read it."""

from dataclasses import dataclass
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.monitoring import say
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.storage import read_json, write_json
from stair_jax.text.tokenizer import Tokenizer

INPUTS = ("model",)


@dataclass(frozen=True)
class ExportSettings:
    """Settings of `export`.

    Attributes:
      model: the stage whose `hf/` is exported, with its scalar head where it has one.
      path: the folder to write; it must be empty or not there yet.
      dtype: of the tensors.
    """

    model: str = ""
    path: str = ""
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        if not self.path:
            raise UserError("export.path is empty: name the folder to write")


def run(context: StageContext) -> None:
    """Writes the folder that `path` names, and `export.json`, which says where it is."""
    settings = read_settings(ExportSettings, context.settings, context.name)
    target = Path(settings.path).expanduser().absolute()
    record = context.folder / "export.json"
    # A former attempt of this stage may have written the folder; anything else is the user's.
    is_ours = record.exists() and read_json(record).get("path") == str(target)
    if not is_ours and target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"export.path: {target} is there already; name another, or remove it")
    write_json(record, {"path": str(target), "dtype": settings.dtype})
    source = context.input("model") / "hf"
    config = huggingface.load_config(source)
    head = huggingface.load_score_head(source) if huggingface.has_score_head(source) else None
    params = huggingface.load_params(source, config)
    tokenizer = Tokenizer.load(source)
    huggingface.save(target, params, config, tokenizer, head, settings.dtype)
    say(f"exported to {target} in {settings.dtype}")
