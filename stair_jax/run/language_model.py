"""A checkpoint as a plain language model: what it scores and samples, of any text.

Unlike the answerer of `run/answering.py` it needs no chat template, and it scores whole texts.
"""

import gc
from dataclasses import dataclass

import jax

from stair_jax.decoding.driver import Driver
from stair_jax.inference.likelihood import LikelihoodScorer, LikelihoodService
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES
from stair_jax.run.answering import MOST_CONTEXT, runtime_for
from stair_jax.run.engines import EngineLayout, EngineSettings, lay_out_engine, start_engine
from stair_jax.run.model_folders import find_model
from stair_jax.settings import Settings, require, setting
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.endings import stored_stop_ids
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import MAX_STOP_IDS, load_huggingface

# Sequences that are sampled side by side, a device; on CPUs fewer are.
_SIDE_BY_SIDE = 256


@dataclass(frozen=True)
class LanguageModelSettings(Settings):
    """How a model is loaded.

    Attributes:
      dtype: of weights and activations; empty: float32 on CPUs, bfloat16 on accelerators.
      weights: of the engine that samples: "none", or kernels of 8 bits: "fp8" (GPUs), "int8"
        (TPUs). Log-likelihoods are those of whole weights.
      context_tokens: most tokens of a sequence; 0: those of the model, at most 4096 on CPUs and
        16384 on accelerators.
      slots: sequences that decode side by side; 0: at most 8 on CPUs, and 256 a device elsewhere.
    """

    dtype: str = setting("", choices=("", *DTYPES))
    weights: str = setting("none", choices=("none", "fp8", "int8"))
    context_tokens: int = setting(0, least=0, most=2**24)
    slots: int = setting(0, least=0, most=2**20)


class LanguageModel:
    """A checkpoint that is loaded for what it is asked: scores, or samples.

    Both lay out the weights in their own way. Only one of them is on the devices at a time, so that
    a model needs no more memory than it has elsewhere.

    Attributes:
      name: as the user gave it.
      hf: the tokenizer as transformers has it.
      chat: how prompts are rendered.
      config: of the checkpoint.
      stop_ids: tokens that end a sample.
      is_structured: whether its tokenizer has the four tags.
      max_length: most tokens of a sequence.
    """

    def __init__(self, name: str, settings: LanguageModelSettings):
        """Reads all but the weights.

        Raises:
          UserError: the model cannot be read, or is a reward model.
        """
        self.name, self._settings = name, settings
        self._folder = find_model(name)
        self.config = huggingface.load_config(self._folder)
        require(
            not huggingface.has_score_head(self._folder),
            f"{name} is a reward model: name a model that has a vocabulary head",
        )
        self.hf = load_huggingface(self._folder)
        self.chat = ChatSettings.load(self._folder)
        eos = () if self.hf.eos_token_id is None else (self.hf.eos_token_id,)
        stop_ids = dict.fromkeys((*eos, *stored_stop_ids(self._folder, self.hf)))
        self.stop_ids = tuple(stop_ids)[:MAX_STOP_IDS]
        self.is_structured = set(TAGS) <= self.hf.get_vocab().keys()
        self._kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        own = min(self.config.max_position_embeddings, MOST_CONTEXT[self._kind])
        self.max_length = settings.context_tokens or own
        self._scoring: Driver | None = None
        self._sampling: Driver | None = None

    def scoring(self) -> Driver:
        """A driver whose main service is one of log-likelihoods (`inference/likelihood.py`)."""
        if self._scoring is None:
            self._sampling = None
            gc.collect()  # engines have circles
            layout = self._layout(EngineSettings(self.max_length, self.dtype))
            params = huggingface.load_params(self._folder, layout.config, layout.mesh)
            scorer = LikelihoodScorer(layout.config, params, layout.mesh)
            self._scoring = Driver(LikelihoodService(scorer))
        return self._scoring

    def sampling(self) -> Driver:
        """A driver of an engine."""
        if self._sampling is None:
            self._scoring = None
            gc.collect()
            settings = EngineSettings(self.max_length, self.dtype, self._settings.weights)
            engine = start_engine(self._folder, settings, self._layout(settings))
            self._sampling = Driver(engine)
        return self._sampling

    @property
    def dtype(self) -> str:
        """Of weights and activations."""
        return self._settings.dtype or ("float32" if self._kind == "cpu" else "bfloat16")

    def _layout(self, settings: EngineSettings) -> EngineLayout:
        wanted = _SIDE_BY_SIDE * len(jax.local_devices())
        slots = self._settings.slots
        runtime = runtime_for(slots, wanted, self.max_length, self._kind, steps=8)
        return lay_out_engine(self.config, settings, runtime)
