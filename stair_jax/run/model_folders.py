"""A model by name: a folder, a stage of a run, an id of the hub, or the pocket base."""

from pathlib import Path

from stair_jax import pocket
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.huggingface import hub
from stair_jax.run.stage_records import COMPLETE_FILE, STARTED_FILE, is_model_removed
from stair_jax.storage import read_json

POCKET = "pocket"
_EXPORT = "export.json"  # of a stage `export`: says where its model is


def find_model(name: str, weights: bool = True) -> Path:
    """The Hugging Face folder of a model.

    Args:
      name: a Hugging Face folder; the folder of a stage, such as `runs/pocket/iter3`; an id of the
        hub, see `hub.resolve`; or "pocket", the base that comes with the package.
      weights: whether those of a model of the hub are needed; else config and tokenizer suffice.

    Raises:
      UserError: there is no such model, the stage made none or is not finished, or the name is that
        of a whole working folder.
    """
    folder = Path(name).expanduser()
    if name == POCKET and not folder.is_dir():
        return Path(*pocket.__path__) / "base"
    if folder.is_dir() and not (folder / "config.json").is_file():
        if made := _made_by_stage(folder):
            return made
    elif folder.is_dir() and not (folder / "tokenizer.json").is_file():
        _refuse_workdir(folder)
    return hub.resolve(name, weights)


def have_one_base(*folders: Path) -> bool:
    """Whether models are one and the same, or adapters of it."""
    bases = [huggingface.adapter_base(folder, weights=False) or folder for folder in folders]
    return len({base.resolve() for base in bases}) == 1


def _made_by_stage(folder: Path) -> Path | None:
    """The model of a stage; None: the folder is that of no stage, and has no model inside."""
    is_stage = any((folder / file).is_file() for file in (COMPLETE_FILE, STARTED_FILE))
    if is_model_removed(folder):
        raise UserError(
            f"the model of the stage {folder} was removed (runtime.keep_models): the run's command "
            f"with --redo={folder.name} makes it again, and what depends on it"
        )
    if (folder / _EXPORT).is_file():
        return folder / str(read_json(folder / _EXPORT).get("path"))
    if (folder / "hf" / "config.json").is_file():
        return folder / "hf"
    if not is_stage:
        return None
    if (folder / COMPLETE_FILE).is_file():
        raise UserError(
            f"{folder} is a stage that makes no model: name one that does, or a Hugging Face folder"
        )
    raise UserError(f"the stage {folder} is not finished: it has no model yet")


def _refuse_workdir(folder: Path) -> None:
    """Raises a UserError if the folder is that of a run, which may hold several models."""
    stages = sorted(path.parents[1].name for path in folder.glob("*/hf/config.json"))
    values = read_json(folder / "config.json")
    if isinstance(values, dict) and "stages" in values:
        choices = f"name one of its stages, {folder}/{stages[-1]}" if stages else "it has no model"
        also = f" (or {', '.join(stages[:-1])})" if stages[1:] else ""
        raise UserError(f"{folder} is the working folder of a run: {choices}{also}")
