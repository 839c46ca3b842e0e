"""What a chat template is given beside the user's turn: a system turn, and values of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.adapter_folders import described
from stair_jax.errors import UserError
from stair_jax.settings import Settings, build
from stair_jax.text.clock import with_fixed_clock

FILE = "stair_chat.json"
_DATE = "26 Jul 2024"  # what Llama 3.1's template writes where it is told no date


@dataclass(frozen=True)
class ChatSettings(Settings):
    """How prompts are rendered, beside the template itself; kept with the tokenizer.

    Attributes:
      system: text of a system turn; like a user's it is plain text, without control tokens. None
        passes no such turn and leaves the choice to the template: those of Qwen2 and Qwen2.5 then
        write a default one ("You are ... a helpful assistant."), those of Llama 3.1 to 3.3 a header
        with a date, Qwen3's and DeepSeek-R1's nothing. "" passes an empty one.
      template_values: variables of the template, e.g. {"enable_thinking": False} for Qwen3.
        `date_string` is a fixed date unless it is given here, since the templates of Llama 3.2 and
        3.3 write today's otherwise: the same prompt would have other tokens tomorrow. For templates
        that ask the clock themselves, `strftime_now` gives the same date, as long as it is one of
        the form "26 Jul 2024", at midnight.
    """

    system: str | None = None
    template_values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises a UserError unless the values are a JSON object, which is what is saved."""
        super().__post_init__()
        try:
            values = json.loads(json.dumps(storage.plain(self.template_values)))
        except (TypeError, ValueError) as error:
            raise UserError(f"template_values must be JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError("template_values must map names to values")
        object.__setattr__(self, "template_values", values)

    def __hash__(self) -> int:
        """Equal settings have equal hashes."""
        return hash((self.system, json.dumps(self.template_values, sort_keys=True)))

    @property
    def values(self) -> dict[str, Any]:
        """All variables that the template is given."""
        return {"date_string": _DATE, **self.template_values}

    def with_fixed_clock(self, template: str) -> str:
        """A template that asks the clock itself, with the date of `date_string` instead."""
        return with_fixed_clock(template, str(self.values["date_string"]), _DATE)

    @classmethod
    def load(cls, folder: Path) -> "ChatSettings":
        """The settings that were saved in a folder; the defaults where none were."""
        path = described(folder, FILE)
        if not path.is_file():
            return cls()
        section = storage.read_json(path)
        if not isinstance(section, dict):
            raise UserError(f"{path} is damaged: it holds no JSON object")
        return build(cls, section, str(path))

    def save(self, folder: Path) -> None:
        """Writes the settings into a folder."""
        storage.write_json(folder / FILE, self)
