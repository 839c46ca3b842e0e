"""The numbers of tokens of a request."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Usage:
    """Tokens of a request.

    Attributes:
      prompt: of the prompt, once.
      generated: all that were sampled, also for what was not kept.
      kept: of the answers.
      reasoning: of those, before their output blocks.
    """

    prompt: int = 0
    generated: int = 0
    kept: int = 0
    reasoning: int = 0

    def as_json(self) -> dict[str, Any]:
        """The field `usage` of a response."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "kept_tokens": self.kept,
            },
        }
