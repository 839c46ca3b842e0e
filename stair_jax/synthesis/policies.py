"""The policies of a stage: ours, texts and files of the user's, by category of prompts."""

from pathlib import Path

from stair_jax.errors import UserError, did_you_mean
from stair_jax.storage import check_regular, reading
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.text.policies import POLICIES

_ENDINGS = (".txt", ".md")  # of a policy that is a file
_LARGEST = 1 << 16  # bytes of such a file


def policies_of(settings: WritingSettings) -> dict[str, str]:
    """The texts by category; none where none are set.

    Raises:
      UserError: a policy names a file that cannot be read, is neither a text nor the name of one of
        ours, or is empty.
    """
    own = {name: _text_of(name, value) for name, value in settings.policies.items()}
    return (POLICIES if settings.default_policies else {}) | own


def policy_files(settings: WritingSettings) -> dict[str, list[Path]]:
    """The files that policies name, by the field that names each."""
    return {
        f"policies.{name}": [_path_of(value)]
        for name, value in settings.policies.items()
        if _is_file(value)
    }


def about(policy: str) -> str:
    """What the category of a policy is about: its first line."""
    return policy.strip().partition("\n")[0]


def _is_file(value: str) -> bool:
    return value.endswith(_ENDINGS) and "\n" not in value


def _path_of(value: str) -> Path:
    return Path(value).expanduser()


def _text_of(name: str, value: str) -> str:
    if value in POLICIES:
        return POLICIES[value]
    text = _read(name, _path_of(value)) if _is_file(value) else value
    if not text.strip():
        raise UserError(f"policies.{name} is empty: give it a text, or leave the category out")
    if text is value and not any(map(str.isspace, value.strip())):
        raise UserError(
            f"policies.{name} is {value!r}, which is no text, no file {' or '.join(_ENDINGS)}, and "
            f"none of our policies: {did_you_mean(value, POLICIES)}"
        )
    return text


def _read(name: str, path: Path) -> str:
    check_regular(path)
    with reading(path):
        if path.stat().st_size > _LARGEST:
            raise UserError(f"policies.{name}: {path} has more than {_LARGEST} bytes: shorten it")
        return path.read_text(encoding="utf-8")
