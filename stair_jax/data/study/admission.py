"""Which prompts may go into which file: each once, and none that repeats a held-out one."""

from collections import Counter, defaultdict
from typing import Any

from stair_jax.data.decontamination import HeldOutTexts, normalised
from stair_jax.text import steps


class Admission:
    """Admits prompts to files, and notes why others stay out.

    Attributes:
      counts: by part of the data, how many prompts were taken, and how many left out by reason.
      left_out: {part, id, prompt, reason} of each that was left out for another text's sake, with
        `set`, `test`, `value` and `like` of the held-out prompt that it repeats.
    """

    def __init__(self, for_training: HeldOutTexts, for_development: HeldOutTexts) -> None:
        """Takes what training rows and what development rows must not repeat."""
        self._held_out = {"training": for_training, "development": for_development}
        self._used: dict[str, str] = {}
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.left_out: list[dict[str, Any]] = []

    def admit(
        self,
        part: str,
        name: str,
        prompt: str,
        *,
        role: str = "training",
        equal_only: bool = False,
    ) -> bool:
        """Whether a prompt may be taken; if so, it counts as used.

        Args:
          part: of the data, for the counts.
          name: id of the prompt.
          prompt: its text; of one in a wrapper, what is in it.
          role: "training" or "development".
          equal_only: compare with the held-out prompts by equality alone.
        """
        plain = normalised(prompt)
        if not plain or steps.TAG_PATTERN.search(prompt):
            return self.refuse(part, "empty, or with a tag of the answers")
        if plain in self._used:
            return self.refuse(part, f"used already in {self._used[plain]}")
        match = self._held_out[role].match(prompt, equal_only)
        if match:
            self.left_out.append(
                {
                    "part": part,
                    "id": name,
                    "prompt": prompt,
                    "reason": f"repeats a prompt of {match.name}",
                    "set": match.name,
                    "test": match.test,
                    "value": round(match.value, 4),
                    "like": match.text,
                }
            )
            return self.refuse(part, f"repeats a prompt of {match.name} ({match.test})")
        self._used[plain] = part
        return True

    def refuse(self, part: str, reason: str) -> bool:
        """Notes a prompt that is left out; False, for the caller to return."""
        self.counts[part][f"left out: {reason}"] += 1
        return False

    def took(self, part: str, count: int = 1) -> None:
        """Notes prompts that were taken."""
        self.counts[part]["taken"] += count
