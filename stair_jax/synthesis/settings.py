"""How answers are written, which of them are kept, and which become pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stair_jax.data.records import KINDS
from stair_jax.decoding.requests import Sampling
from stair_jax.errors import UserError
from stair_jax.settings import Settings, setting
from stair_jax.synthesis.templates import check_template, find_template

CategoriesBy = Literal["column", "kind", "model"]


@dataclass(frozen=True)
class WritingSettings(Settings):
    """How answers are written.

    Attributes:
      num_candidates: K, answers to each prompt.
      kinds: of the prompts that are answered; empty: both.
      template: what the model is asked: a text with `{prompt}`, with `{policy}` where there are
        policies, perhaps with `{answer}`, that of the prompt's row, and `{form}`, the grammar in
        words; or the name of one of ours (`synthesis/templates.py`): "deliberative" asks to reason
        about the policy, "refusal" for a refusal of one sentence; with the grammar, for a writer
        that was not trained on it, "deliberative_steps", "steps" for an answer in steps, and
        "rewrite" for the row's answer as steps. What is kept has the bare prompt.
      policies: by category of prompts, what the template shows: a text, the name of one of ours
        (`text/policies.py`), or a text file, `NAME.txt` or `NAME.md`.
      default_policies: take our seven categories and "general", each unless `policies` has it.
      categories: how a prompt gets its category: by its "column" of that name, by its "kind", or
        by the "model" itself, which chooses one by the log-probs of their names, relative to those
        without a request. What has no policy of its own has that of "general", if there is one.
      answer_format: "structured": an answer that breaks the grammar is not kept; "plain": any text.
      repair: a malformed answer and what is wrong with it go back to the writer once, and what it
        then writes takes its place.
      temperature: of the answers.
      top_p: of the same; 1 sets no limit.
      top_k: of the same; 0 sets no limit.
      max_answer_tokens: of an answer; one that is cut is not kept.
      max_prompt_tokens: rendered, with template and policy; longer prompts are left out.
      max_similarity: an answer whose word triples agree with those of an earlier one to the same
        prompt by this Jaccard index or more is a near-duplicate, and not kept.
    """

    num_candidates: int = setting(4, least=1, most=2**16)
    kinds: tuple[str, ...] = setting((), choices=KINDS)
    template: str = "{prompt}"
    policies: Mapping[str, str] = setting(dict)
    default_policies: bool = False
    categories: CategoriesBy = "column"
    answer_format: Literal["structured", "plain"] = "structured"
    repair: bool = setting(False, absent=False)
    temperature: float = setting(0.7, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(0, least=0, most=2**24)
    max_answer_tokens: int = setting(2048, least=1, most=2**24)
    max_prompt_tokens: int = setting(2048, least=1, most=2**24)
    max_similarity: float = setting(0.9, above=0, most=1)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        self.sampling(())
        check_template(self.template, bool(self.policies or self.default_policies))

    @property
    def template_text(self) -> str:
        """The template, where a name stands for one of ours that one."""
        return find_template(self.template)

    def sampling(self, stop_ids: tuple[int, ...]) -> Sampling:
        """The engine's settings for one answer."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.max_answer_tokens, stop_ids)


@dataclass(frozen=True)
class AcceptSettings(Settings):
    """Which judged answers become SFT examples; None sets no limit.

    Attributes:
      min_safety: least S.
      min_helpfulness: least H of answers to harmless prompts, where the judge is asked about it: a
        good answer to a harmful prompt does not help.
      min_reward: least R.
      max_per_prompt: of one prompt, those with the highest rewards; 0: all.
    """

    min_safety: float | None = setting(0.0, least=-1, most=1)
    min_helpfulness: float | None = setting(0.0, least=-1, most=1)
    min_reward: float | None = None
    max_per_prompt: int = setting(1, least=0)


@dataclass(frozen=True)
class PairSettings(Settings):
    """Pairs of whole answers, for DPO.

    Attributes:
      pairs: "": none. "best_worst": of the answers to a prompt the one with the highest reward
        against the one with the lowest (Self-Rewarding, Yuan et al. 2024). "given_own": the
        `answer` of the prompt's row against the model's own one with the lowest reward.
      v0: the rewards of a pair differ by more than this. None, of "given_own": the given answer is
        the better one without being judged.
      v1: the larger reward is at least this; None: whatever it is.
    """

    pairs: Literal["", "best_worst", "given_own"] = ""
    v0: float | None = setting(0.5, least=0)
    v1: float | None = None

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if self.v0 is None and self.pairs != "given_own":
            raise UserError("v0=None goes with pairs='given_own': give the least gap of rewards")
        if self.v0 is None and self.v1 is not None:
            raise UserError("v1 is a limit of rewards, which v0=None does not look at: unset v1")
