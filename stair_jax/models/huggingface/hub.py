"""Finds checkpoints by name: a local folder, or an id on the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from stair_jax.addresses import require_local
from stair_jax.errors import UserError
from stair_jax.models.huggingface.other_forms import about_file, other_forms
from stair_jax.storage import using_disk

_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/.*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Neither pickles nor code are fetched: they are never read. `*` in these patterns matches slashes
# too, hence `_SUBFOLDERS` to leave out.
_DESCRIPTION = ["*.json", "*.jinja", "tokenizer.model"]
_WEIGHTS = ["model*.safetensors"]
_SUBFOLDERS = ["*/*"]
_READ = (".json", ".jinja", ".model", ".safetensors", ".txt")  # endings of a checkpoint's files


def resolve(init: str, weights: bool = True) -> Path:
    """The folder of a checkpoint.

    Args:
        init: a folder, or else a hub id such as `Qwen/Qwen2-7B-Instruct`. Its files are fetched
            into the cache of huggingface_hub (`HF_HOME`) unless they are there already.
        weights: whether the tensors are needed; config and tokenizer suffice for a plan.

    Raises:
        UserError: there is no such folder or model, or it cannot be fetched; says what to do.
    """
    require_local(init, "the model")
    folder = Path(init).expanduser()
    if folder.is_dir():
        _check_form(init, sorted(path.name for path in folder.iterdir()))
        return folder
    if folder.exists():
        raise UserError(about_file(folder))
    if page := _PAGE.fullmatch(init):
        raise UserError(f"{init} is a web page: name the model {page[1]} itself")
    if not _HUB_ID.fullmatch(init):
        raise UserError(f"there is no folder {folder}")
    found = _fetch(init, _DESCRIPTION + _WEIGHTS if weights else _DESCRIPTION)
    if weights and not any(found.glob(_WEIGHTS[0])):
        _check_form(init, _names_on_hub(init))
        raise UserError(
            f"{init} has no model.safetensors on the hub or in the cache {found}: choose a "
            "checkpoint with safetensors (others are not read), or fetch it with a network"
        )
    if not (found / "config.json").is_file():
        _check_form(init, _names_on_hub(init))
    return found


def source_files(init: str) -> Sequence[Path] | str | None:
    """What identifies the content of a checkpoint: the files of a folder, or the commit of an id.

    None: it is not here (yet). The hub is not asked.
    """
    folder = Path(init).expanduser()
    if not folder.is_dir():
        return cached_commit(init)
    files = (file for file in folder.iterdir() if file.suffix in _READ)
    return sorted(file for file in files if file.is_file())


def cached_commit(repo_id: str) -> str | None:
    """The commit of a model in the cache of huggingface_hub; None: there is none, or no such id.

    The hub is not asked.
    """
    if not _HUB_ID.fullmatch(repo_id):
        return None
    try:
        found = huggingface_hub.try_to_load_from_cache(repo_id, "config.json")
    except errors.HFValidationError:
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def _check_form(init: str, names: list[str]) -> None:
    """Raises a UserError if the files are a checkpoint of a form that is not read."""
    if about := other_forms(init, names):
        raise UserError(about)


def _names_on_hub(repo_id: str) -> list[str]:
    """The files of a model on the hub; [] if it cannot be reached."""
    try:
        return huggingface_hub.list_repo_files(repo_id)
    except Exception:  # its HTTP client's errors have no common base class
        return []


def _fetch(repo_id: str, patterns: list[str]) -> Path:
    here = f"there is no folder {repo_id} here, and "
    instead = (
        f"run `hf download {repo_id}` on a machine with network access, or name a local folder"
    )
    try:
        with using_disk(constants.HF_HUB_CACHE):
            return Path(
                huggingface_hub.snapshot_download(
                    repo_id, allow_patterns=patterns, ignore_patterns=_SUBFOLDERS
                )
            )
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repo_id} is gated: accept its terms at {constants.ENDPOINT}/{repo_id}, log in with "
            "`hf auth login`, and run again"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"{here}the hub has no model {repo_id}: correct the name, or log in with "
            "`hf auth login` if it is private"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError) as error:
        raise UserError(
            f"{here}the hub cannot be reached to fetch {repo_id}, of which the cache "
            f"{constants.HF_HUB_CACHE} has not all files: {instead}"
        ) from error
    except Exception as error:  # its HTTP client's errors have no common base class
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot fetch {repo_id} ({reason}): {instead}") from error
