"""Finds checkpoints by name: a local folder, or an id on the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from stair_jax.adapter_folders import (
    CONFIG_FILE,
    TENSORS_FILE,
    about_another,
    base_record,
    cached_folder,
    find_base,
    is_adapter_folder,
    is_recorded,
    local_base,
    named_base,
    recorded_place,
    weights_fingerprint,
)
from stair_jax.addresses import require_local
from stair_jax.errors import UserError
from stair_jax.models.huggingface.other_forms import about_file, other_forms
from stair_jax.parallel.processes import collectives
from stair_jax.storage import using_disk

_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/.*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Neither pickles nor code are fetched: they are never read. `*` in these patterns matches slashes
# too, hence `_SUBFOLDERS` to leave out.
_DESCRIPTION = ["*.json", "*.jinja", "tokenizer.model", TENSORS_FILE]
_WEIGHTS = ["model*.safetensors"]
_SUBFOLDERS = ["*/*"]
_READ = (".json", ".jinja", ".model", ".safetensors", ".txt")  # endings of a checkpoint's files


def resolve(init: str, weights: bool = True) -> Path:
    """The folder of a checkpoint.

    Args:
        init: a folder, or else a hub id such as `Qwen/Qwen2-7B-Instruct`. Its files are fetched
            into the cache of huggingface_hub (`HF_HOME`) unless they are there already.
        weights: whether the tensors are needed; config and tokenizer suffice for a plan.

    A folder or id of adapters needs its base too, see `adapter_base`.

    Raises:
        UserError: there is no such folder or model, or it cannot be fetched; says what to do.
    """
    require_local(init, "the model")
    folder = Path(init).expanduser()
    if folder.is_dir():
        _check_form(init, sorted(path.name for path in folder.iterdir()))
        adapter_base(folder, weights)
        return folder
    if folder.exists():
        raise UserError(about_file(folder))
    if page := _PAGE.fullmatch(init):
        raise UserError(f"{init} is a web page: name the model {page[1]} itself")
    if not _HUB_ID.fullmatch(init):
        raise UserError(f"there is no folder {folder}")
    found = _fetch(init, _DESCRIPTION + _WEIGHTS if weights else _DESCRIPTION)
    if (found / CONFIG_FILE).is_file() and adapter_base(found, weights):
        return found
    if weights and not any(found.glob(_WEIGHTS[0])):
        _check_form(init, _names_on_hub(init))
        raise UserError(
            f"{init} has no model.safetensors on the hub or in the cache {found}: choose a "
            "checkpoint with safetensors (others are not read), or fetch it with a network"
        )
    if not (found / "config.json").is_file():
        _check_form(init, _names_on_hub(init))
    return found


def adapter_base(folder: str | Path, weights: bool = True) -> Path | None:
    """The folder of the model that a folder's adapters belong to; None: it has no adapters.

    `base.json` says where it is, as seen from the folder, or else `adapter_config.json`: a folder,
    or an id of the hub, from which it is fetched.

    Args:
        folder: the folder.
        weights: whether its tensors are needed; they are then compared with `base.json`, by one
            of the processes of a run.

    Raises:
        UserError: it is not there, is another model than it was, or has adapters itself.
    """
    folder = Path(folder)
    if not is_adapter_folder(folder):
        return None
    base = find_base(folder, checked=weights and collectives.is_main())
    if base is None:
        base = _named_base(folder, weights)
    if is_adapter_folder(base):
        raise UserError(
            f"{folder} has adapters of {base}, which are adapters too: merge those into their base "
            "first"
        )
    return base


def _named_base(folder: Path, weights: bool) -> Path:
    """The base that `adapter_config.json` names, from the hub."""
    name, record = named_base(folder), base_record(folder)
    if not _HUB_ID.fullmatch(name):
        place = recorded_place(folder)
        places = [name] if place is None else [str(place), name]
        raise UserError(
            f"{folder} has adapters of a model that is not at {' nor at '.join(places)}: "
            f"put it there, or correct base_model_name_or_path in {CONFIG_FILE}"
        )
    try:
        base = resolve(name, weights)
    except UserError as error:
        raise UserError(f"the base of the adapters in {folder}: {error}") from error
    if weights and collectives.is_main() and not is_recorded(base, record):
        raise UserError(about_another(name, folder))
    return base


def source_files(init: str) -> Sequence[Path] | str | None:
    """What identifies the content of a checkpoint: the files of a folder, or the commit of an id.

    Adapters are identified together with their base. None: it is not here (yet). The hub is not
    asked.
    """
    folder = Path(init).expanduser()
    if not folder.is_dir():
        return _identity(init)
    files = (file for file in folder.iterdir() if file.suffix in _READ)
    found = sorted(file for file in files if file.is_file())
    if not is_adapter_folder(folder):
        return found
    base = local_base(folder)
    if base is None or not any(base.glob(_WEIGHTS[0])):
        return None
    return [*found, *sorted(file for file in base.iterdir() if file.suffix in _READ)]


def _identity(repo_id: str) -> str | None:
    """The commit of an id; of adapters also that of their base, or its content."""
    commit = cached_commit(repo_id)
    folder = cached_folder(repo_id, CONFIG_FILE)
    if commit is None or folder is None:
        return commit
    place = find_base(folder, checked=False)
    base = weights_fingerprint(place) if place else cached_commit(named_base(folder))
    return f"{commit} on {base}" if base else None


def cached_commit(repo_id: str) -> str | None:
    """The commit of a model in the cache of huggingface_hub; None: there is none, or no such id.

    The hub is not asked.
    """
    if not _HUB_ID.fullmatch(repo_id):
        return None
    found = cached_folder(repo_id) or cached_folder(repo_id, CONFIG_FILE)
    return None if found is None else found.name


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
