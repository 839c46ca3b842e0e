"""Which models answer, and how: settings, and all that is checked before weights are read."""

from dataclasses import dataclass
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import Method, parse_method
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.run.model_folders import find_model
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.settings import require, setting
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer, load_huggingface

_SOURCES = ("policy", "rule", "reference")  # of judgements, that need no other model


@dataclass(frozen=True)
class AnswerSettings(TestTimeSettings):
    """How a model is asked, and how it is loaded.

    Attributes:
      method: "greedy"; "sample": one sampled answer; "best_of_n", "beam_search" or "dvts": a search
        guided by the reward model, with the ending "_self_reward" by the model's own judgements;
        each also with a size, "best_of_n:16", "beam_search:4x4" (width x successors), "dvts:4x4".
      system: text of a system turn, for chats without one; None: that of the model's folder.
      seed: of all samples.
      context_tokens: most tokens of a sequence, prompt and answer; 0: those of the model, at most
        4096 on CPUs and 16384 on accelerators.
      dtype: of weights and activations; empty: float32 on CPUs, bfloat16 on accelerators.
      weights: "none", or kernels of 8 bits: "fp8" (GPUs), "int8" (TPUs).
      slots: sequences that decode side by side; 0: as many as there are, at most 8 on CPUs and
        256 a device on accelerators.
      judge: of self-reward, see `JudgeSettings`.
      reward: of self-reward, see `SafetyReward`.
    """

    method: str = "greedy"
    system: str | None = None
    seed: int = setting(0, least=-(2**63), most=2**63 - 1)
    context_tokens: int = setting(0, least=0, most=2**24)
    dtype: str = setting("", choices=("", *DTYPES))
    weights: str = setting("none", choices=("none", "fp8", "int8"))
    slots: int = setting(0, least=0, most=2**20)
    judge: JudgeSettings = setting(JudgeSettings)
    reward: SafetyReward = setting(SafetyReward)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        parse_method(self.method)
        others = [name for name in self.judge.used_sources if name not in _SOURCES]
        require(
            not others,
            f"judge.source names {others[0] if others else ''!r}: self-reward has "
            f"{', '.join(_SOURCES)}; for a reward model, name it with --prm",
        )

    @property
    def parsed_method(self) -> Method:
        """The method with its size."""
        return parse_method(self.method)


@dataclass(frozen=True)
class ModelFiles:
    """A model that was found and can be read, as far as its description tells.

    Attributes:
      name: as the user gave it.
      folder: of its files.
      config: its shape.
      tokenizer: with the four tags.
      is_structured: whether its own tokenizer has the tags, so that its answers may have steps.
    """

    name: str
    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    is_structured: bool


def find_files(model: str, prm: str, settings: AnswerSettings) -> tuple[ModelFiles, Path | None]:
    """Checks all that can be checked of the models before weights are read.

    Args:
      model: name of the model, see `find_model`.
      prm: name of the reward model; "": none.
      settings: say what is needed.

    Returns:
      the model, and the folder of the reward model.

    Raises:
      UserError: says what is missing, or does not fit together.
    """
    require(bool(model), "--model is missing: name a folder, a hub id, or a stage of a run")
    method = settings.parsed_method
    require(
        bool(prm) or not method.is_guided,
        f"--method={method} needs a reward model: name one with --prm, or use "
        f"--method={method.self_rewarded}",
    )
    # The description of each, before the weights of any are fetched.
    for name in filter(None, (model, prm)):
        huggingface.load_config(_find(name, weights=False))
    folder = _find(model)
    if huggingface.has_score_head(folder):
        raise UserError(f"--model={model} is a reward model: name it with --prm")
    tokenizer = prepare_tokenizer(folder)
    require(
        bool(tokenizer.hf.chat_template),
        f"--model={model} has no chat template: name a model that was tuned for chat, or add "
        "chat_template.jinja to its folder",
    )
    is_structured = set(TAGS) <= set(load_huggingface(folder).get_vocab())
    if method.is_self_rewarded:
        require(
            is_structured,
            f"--method={method} judges the output block of an answer, and --model={model} "
            "has no tags for one: use a model after SFT, or --prm",
        )
    files = ModelFiles(model, folder, huggingface.load_config(folder), tokenizer, is_structured)
    return files, _find_prm(prm, tokenizer) if prm else None


def _find(name: str, weights: bool = True) -> Path:
    try:
        return find_model(name, weights)
    except UserError as error:
        about = "" if name in str(error) else f"{name}: "
        raise UserError(f"{about}{error}") from error


def _find_prm(prm: str, tokenizer: Tokenizer) -> Path:
    folder = _find(prm)
    if not huggingface.has_score_head(folder):
        raise UserError(f"--prm={prm} is no reward model: it has no scalar head")
    known = load_huggingface(folder).get_vocab()
    own = tokenizer.hf.get_vocab()
    differing = sorted(token for token, id in own.items() if known.get(token, id) != id)
    if differing or not set(TAGS) <= known.keys():
        token = differing[0] if differing else TAGS[0]
        raise UserError(
            f"--prm={prm} has another tokenizer than the model (by the token {token!r}): a reward "
            "model scores the token ids of the model, so name one that was trained from it"
        )
    return folder
