"""Training objectives: model forward pass and loss over a packed micro-batch.

The training step differentiates these. Each objective is a frozen dataclass and so hashable: stages
with equal settings share one compiled step. The arrays of a micro-batch are described in
`batches.py`, those of trees in `trie_batches.py`. Shapes: R rows of T tokens, S groups of G
sequences.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stair_jax.data.pairs import SftOn
from stair_jax.models import heads, transformer
from stair_jax.models.config import ModelConfig
from stair_jax.training.logps import token_logps, weighted_logp
from stair_jax.training.losses import dpo_margin, pair_loss, prm_loss, sft_loss
from stair_jax.training.pair_loss import NEUTRAL, PairLossSettings
from stair_jax.training.step import Micro, Params, Sums


@dataclass(frozen=True)
class SftObjective:
    """SFT: mean negative log-likelihood over the weighted tokens of a batch."""

    config: ModelConfig
    num_chunks: int = 1

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the tokens of a micro-batch; the weight is the number of weighted tokens."""
        params = transformer.narrowed(self.config, params)
        # With one chunk `token_logps` keeps its logits: nothing is recomputed there either.
        if self.num_chunks == 1:
            logps = micro_logps(self.config, 1, params, micro)
            return Sums(*sft_loss(logps, micro["weights"]), metrics={})
        hidden = _hidden(self.config, params, micro)
        head = transformer.output_head(params, self.config)
        targets, weights = micro["targets"], micro["weights"]
        total = weighted_logp(
            hidden, head, targets, weights, self.num_chunks, self.config.vocab_size
        )
        return Sums(-total, jnp.sum(weights), metrics={})


@dataclass(frozen=True)
class DpoObjective:
    """Step-level DPO plus `sft_weight` times the SFT loss on the chosen side.

    Groups are (chosen, rejected), with the values ref_chosen and ref_rejected. Both terms are means
    over pairs, and the SFT loss of a pair is the mean over the tokens of its chosen step, so that
    long steps weigh no more than short ones; or, with `sft_on` "answer", over those of the path and
    the chosen step. The path of several pairs then counts once for each of them.

    All metrics are means over pairs. `margin` is the difference of the implicit rewards, and
    `kl_chosen` is (log ref - log pi) / tokens of the chosen step, in nats per token. The steps are
    samples of the reference, so it estimates KL(reference || policy) per token; but they are
    selected for their high value, and the loss raises their probability, so the estimate is biased
    and may be negative. With `terms` there are `length_margin` (chosen less rejected tokens), and
    where these add an offset to the margin, its mean as `offset` and as `loss_at_reference` the
    loss that pairs of margin 0 have.
    """

    config: ModelConfig
    beta: float
    sft_weight: float
    num_chunks: int = 1
    sft_on: SftOn = "step"
    terms: PairLossSettings = NEUTRAL

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the pairs of a micro-batch; the weight is the number of pairs."""
        weight = micro["group_weight"]
        params = transformer.narrowed(self.config, params)
        logps = micro_logps(self.config, self.num_chunks, params, micro)
        chosen, rejected = sequence_sums(logps * micro["weights"], micro).T
        chosen_length, rejected_length = sequence_sums(micro["weights"], micro).T
        margin = dpo_margin(
            chosen,
            rejected,
            micro["ref_chosen"],
            micro["ref_rejected"],
            self.beta,
            (chosen_length, rejected_length) if self.terms.length_normalize else None,
        )
        offset = self.terms.offset(chosen_length, rejected_length, micro)
        smoothing = self.terms.label_smoothing
        dpo = pair_loss(margin if offset is None else margin + offset, smoothing)
        answer, answer_length = chosen, chosen_length
        if self.sft_on == "answer":
            answer = chosen + sft_alone_sums(logps, micro)
            answer_length = chosen_length + sft_alone_sums(jnp.ones_like(logps), micro)
        sft = -answer / jnp.maximum(answer_length, 1.0)  # an unused group has length 0
        metrics = {
            "dpo_loss": dpo,
            "sft_loss": sft,
            "margin": margin,
            "accuracy": margin > 0,
            "chosen_logp": chosen,
            "rejected_logp": rejected,
            "chosen_length": chosen_length,
            "rejected_length": rejected_length,
            "kl_chosen": (micro["ref_chosen"] - chosen) / jnp.maximum(chosen_length, 1.0),
        }
        if not self.terms.is_neutral:
            metrics["length_margin"] = chosen_length - rejected_length
        if offset is not None:
            metrics |= {"offset": offset, "loss_at_reference": pair_loss(offset, smoothing)}
        return Sums(
            jnp.sum(weight * (dpo + self.sft_weight * sft)),
            jnp.sum(weight),
            {name: jnp.sum(weight * value) for name, value in metrics.items()},
        )


@dataclass(frozen=True)
class PrmObjective:
    """PRM: Bradley-Terry loss of the scores at the last tokens; groups are (chosen, rejected)."""

    config: ModelConfig

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the pairs of a micro-batch; `params` is {"model": ..., "score": ...}."""
        weight = micro["group_weight"]
        params = params | {"model": transformer.narrowed(self.config, params["model"])}
        chosen, rejected = sequence_scores(self.config, params, micro).T
        metrics = {
            "accuracy": chosen > rejected,
            "chosen_score": chosen,
            "rejected_score": rejected,
        }
        return Sums(
            jnp.sum(weight * prm_loss(chosen, rejected)),
            jnp.sum(weight),
            {name: jnp.sum(weight * value) for name, value in metrics.items()},
        )


def micro_logps(config: ModelConfig, num_chunks: int, params: Params, micro: Micro) -> jax.Array:
    """Log-probs `[R, T]` of the targets of a micro-batch; may be 0 where the weight is 0."""
    hidden = _hidden(config, params, micro)
    head = transformer.output_head(params, config)
    targets, weights = micro["targets"], micro["weights"]
    if "sft_weights" in micro:
        weights = weights + micro["sft_weights"]
    return token_logps(hidden, head, targets, num_chunks, config.vocab_size, weights)


def sequence_sums(values: jax.Array, micro: Micro) -> jax.Array:
    """Sums `[S, G]` over each sequence of `values[R, T]`, which must be 0 where the weight is 0."""
    if "runs" in micro:
        return _run_sums(values, micro, micro["runs"])
    count = micro["last"].shape[0]
    # One more segment than sequences, for padding.
    sums = jax.ops.segment_sum(values.ravel(), micro["sequence_ids"].ravel(), count + 1)
    return sums[:count].reshape(micro["group_weight"].shape[0], -1)


def sft_alone_sums(values: jax.Array, micro: Micro) -> jax.Array:
    """Sums `[S]` of `values[R, T]` over what the SFT term alone counts: the path of each group."""
    if "sft_runs" in micro:
        return _run_sums(values * micro["weights"], micro, micro["sft_runs"])[:, 0]
    return sequence_sums(values * micro["sft_weights"], micro)[:, 0]


def _run_sums(values: jax.Array, micro: Micro, runs: jax.Array) -> jax.Array:
    """Sums `[...]` over the nodes `runs[..., D]` of tries: first per node, then over each run."""
    count = sum(micro[name].size for name in ("runs", "sft_runs") if name in micro)  # N
    nodes = jax.ops.segment_sum(values.ravel(), micro["node_ids"].ravel(), count)
    # Both ids are N where there is nothing: dropped above, filled with 0 here.
    return jnp.sum(nodes.at[runs].get(mode="fill", fill_value=0.0), axis=-1)


def sequence_scores(config: ModelConfig, params: Params, micro: Micro) -> jax.Array:
    """Scores `[S, G]` of each sequence by a PRM: the score head at its last token."""
    hidden = _hidden(config, params["model"], micro)
    # Gathered first, so that the head is applied to one position per sequence: [S * G, 1, D].
    last = hidden.reshape(-1, 1, hidden.shape[-1])[micro["last"]]
    scores = heads.score(last, params["score"], jnp.zeros_like(micro["last"]))
    return scores.reshape(micro["group_weight"].shape[0], -1)


def _hidden(config: ModelConfig, params: Params, micro: Micro) -> jax.Array:
    return transformer.apply(
        config,
        params,
        micro["tokens"],
        micro["positions"],
        micro["segment_ids"],
        micro.get("ends"),
    )
