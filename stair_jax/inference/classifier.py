"""Sequence classifiers with several labels, as a service of the driver.

They are the checkpoints of transformers' `...ForSequenceClassification` of the supported families:
a decoder whose head `score.weight [labels, D]` reads the last token that is not padding.
"""

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding.score_requests import ScoreRequest
from stair_jax.decoding.task import Service, Task
from stair_jax.inference.batch_service import BatchService
from stair_jax.inference.last_token import LastTokenScorer
from stair_jax.models import heads, huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import apply

CLASSIFIER_SERVICE = "classifier"


@dataclass(frozen=True)
class LabelCompletion:
    """The logits of a sequence, one a label, in the order of `SequenceClassifier.labels`."""

    id: Hashable
    logits: tuple[float, ...]


class SequenceClassifier(LastTokenScorer):
    """A classifier of token sequences.

    Attributes:
      labels: names of the classes, in the order of the logits.
      rows: sequences per batch.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        labels: Sequence[str],
        pad_id: int | None = None,
        rows: int = 16,
        buckets: Sequence[int] = (256,),
        mesh: Mesh | None = None,
    ):
        """A classifier; see `load_classifier` for one of a folder.

        Args:
          config: of the model.
          params: {"model": parameters, "score": {"kernel": [D, labels]}}.
          labels: names of the classes.
          pad_id: token id of padding. The logits are those of the last other token, as in
            transformers, whether or not padding was written; None: of the last token.
          rows: sequences per batch; rounded up to a multiple of data x fsdp of the mesh.
          buckets: lengths that sequences are padded to, see `LastTokenScorer`.
          mesh: on which `params` are; None: one device.
        """
        super().__init__(config, params, rows, buckets, mesh)
        self.labels = tuple(labels)
        self._pad_id = pad_id

    @property
    def longest(self) -> int:
        """Most tokens of a sequence that the model was made for."""
        return self._config.context_tokens

    @property
    def services(self) -> Mapping[str, Service]:
        """A new service that classifies in batches."""
        return {CLASSIFIER_SERVICE: ClassifierService(self)}

    def logits(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits [N, labels] float32 of token sequences, in their order."""
        return self.score_all(sequences).reshape(len(sequences), len(self.labels))

    def _compute(self, tokens: jax.Array, last: jax.Array) -> jax.Array:
        return label_logits(self._config, self._params, tokens, last)

    def _last(self, sequence: Sequence[int]) -> int:
        places = [place for place, token in enumerate(sequence) if token != self._pad_id]
        # Transformers takes the first token of a sequence that is all padding.
        return places[-1] if places else 0


@functools.partial(jax.jit, static_argnums=0)
def label_logits(config: ModelConfig, params: Any, tokens: jax.Array, last: jax.Array) -> jax.Array:
    """Logits `[B, labels]` float32 of tokens `[B, T]` at the positions `last [B]`.

    Padding after `last` needs no mask: attention is causal.
    """
    positions = jax.lax.broadcasted_iota(np.int32, tokens.shape, 1)
    hidden = apply(config, params["model"], tokens, positions)
    return heads.classify(hidden, params["score"], last)


class ClassifierService(BatchService[ScoreRequest, LabelCompletion]):
    """Classifies sequences of like length in batches."""

    def __init__(self, classifier: SequenceClassifier):
        """A service without requests."""
        super().__init__()
        self._classifier = classifier

    def bucket(self, request: ScoreRequest) -> int:
        """Length to which the sequence is padded."""
        return self._classifier.bucket(len(request.tokens))

    def rows(self, bucket: int) -> int:
        """The same for all lengths."""
        return self._classifier.rows

    def dispatch(self, requests: Sequence[ScoreRequest], bucket: int) -> jax.Array:
        """Starts to classify: `[rows, labels]` float32."""
        return self._classifier.dispatch([request.tokens for request in requests], bucket)

    def completion(self, request: ScoreRequest, row: int, results: np.ndarray) -> LabelCompletion:
        """The logits of a row."""
        return LabelCompletion(request.id, tuple(results[row].tolist()))


class ClassifierTask(Task[LabelCompletion]):
    """The logits of one sequence."""

    def __init__(self, tokens: Sequence[int], service: str = CLASSIFIER_SERVICE):
        """A task that has asked nothing yet.

        Args:
          tokens: token ids of the classifier.
          service: name of its service.
        """
        self._request = ScoreRequest((), tuple(tokens), service)

    def start(self) -> list[ScoreRequest]:
        """The only request."""
        return [self._request]

    def receive(self, completion: LabelCompletion) -> list[ScoreRequest]:
        """Takes the logits."""
        self.result = completion
        return []


def load_classifier(
    folder: str | Path,
    dtype: str = "float32",
    rows: int = 16,
    buckets: Sequence[int] = (256,),
    mesh: Mesh | None = None,
    vocab_multiple: int = 1,
) -> SequenceClassifier:
    """Reads a sequence classifier from a Hugging Face folder.

    Args:
      folder: with `score.weight`; labels are those of `id2label` in its config.json.
      dtype: of weights and activations; the head is float32.
      rows: sequences per batch.
      buckets: lengths that sequences are padded to.
      mesh: over which the parameters are sharded; None: the default device.
      vocab_multiple: see `layout.fit_to_mesh`.

    Raises:
      UserError: names the file, tensor or field that is missing or damaged.
    """
    labels = huggingface.load_labels(folder)
    config = dataclasses.replace(
        huggingface.load_config(folder), dtype=dtype, param_dtype=dtype, lora=None
    )
    if mesh is not None:
        config = fit_to_mesh(config, mesh, vocab_multiple)
    params = {
        "model": huggingface.load_params(folder, config, mesh),
        "score": huggingface.load_label_head(folder, mesh),
    }
    pad_id = huggingface.load_pad_id(folder)
    return SequenceClassifier(config, params, labels, pad_id, rows, buckets, mesh)
