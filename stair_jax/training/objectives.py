"""The losses over packed micro-batches of a model: what a training step differentiates.

Each objective is a frozen dataclass, so that stages with equal settings share a compiled step.
The fields of a micro-batch are described in batches.py, those of trees in tree_batches.py.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stair_jax.models import heads, transformer
from stair_jax.models.config import ModelConfig
from stair_jax.training.logps import token_logps, weighted_logp
from stair_jax.training.losses import prm_loss, sft_loss, step_dpo_loss
from stair_jax.training.step import Micro, Params, Sums


@dataclass(frozen=True)
class SftObjective:
    """Mean negative log-likelihood of the weighted tokens; the weight is their number."""

    config: ModelConfig
    num_chunks: int = 1

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the tokens of a micro-batch."""
        if self.num_chunks == 1:
            logps = micro_logps(self.config, 1, params, micro)
            return Sums(*sft_loss(logps, micro["weights"]), metrics={})
        hidden = _hidden(self.config, params, micro)
        head = transformer.output_embedding(params, self.config)
        targets, weights = micro["targets"], micro["weights"]
        total = weighted_logp(
            hidden, head, targets, weights, self.num_chunks, self.config.vocab_size
        )
        return Sums(-total, jnp.sum(weights), metrics={})


@dataclass(frozen=True)
class DpoObjective:
    """Step-level DPO plus `sft_weight` times the SFT loss of the chosen step.

    The weight is the number of pairs. The SFT loss of a pair is the mean over the tokens of its
    chosen step, and both terms are means over pairs: a long step weighs no more than a short one.
    Groups are (chosen, rejected), with values ref_chosen and ref_rejected.

    Of the metrics, which are means over pairs, `kl_chosen` is what a token of the chosen step lost
    against the reference, (log ref - log pi) / its tokens, in nats. The steps being samples of the
    reference, it estimates KL(reference || policy) a token, biased by their selection: they are
    those of high value, whose probability the loss raises, so that it may be below 0.
    """

    config: ModelConfig
    beta: float
    sft_weight: float
    num_chunks: int = 1

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the pairs of a micro-batch."""
        weight = micro["group_weight"]
        logps = micro_logps(self.config, self.num_chunks, params, micro)
        chosen, rejected = sequence_sums(logps * micro["weights"], micro).T
        chosen_length, rejected_length = sequence_sums(micro["weights"], micro).T
        dpo = step_dpo_loss(chosen, rejected, micro["ref_chosen"], micro["ref_rejected"], self.beta)
        sft = -chosen / jnp.maximum(chosen_length, 1.0)
        margin = self.beta * ((chosen - micro["ref_chosen"]) - (rejected - micro["ref_rejected"]))
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
        return Sums(
            jnp.sum(weight * (dpo + self.sft_weight * sft)),
            jnp.sum(weight),
            {name: jnp.sum(weight * value) for name, value in metrics.items()},
        )


@dataclass(frozen=True)
class PrmObjective:
    """Bradley-Terry loss of the scores at the last tokens; groups are (chosen, rejected)."""

    config: ModelConfig

    def __call__(self, params: Params, micro: Micro) -> Sums:
        """Sums over the pairs of a micro-batch; `params` is {"model": ..., "score": ...}."""
        weight = micro["group_weight"]
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
    """Log-probabilities `[R, T]` of the targets of a micro-batch; of weight 0, maybe just 0."""
    hidden = _hidden(config, params, micro)
    head = transformer.output_embedding(params, config)
    targets, weights = micro["targets"], micro["weights"]
    return token_logps(hidden, head, targets, num_chunks, config.vocab_size, weights)


def sequence_sums(values: jax.Array, micro: Micro) -> jax.Array:
    """Sums of `values[R, T]`, 0 where the weight is 0, over each sequence: `[S, G]`."""
    if "runs" in micro:  # of trees: sums over the nodes that count for the sequence
        runs = micro["runs"]
        nodes = jax.ops.segment_sum(values.ravel(), micro["node_ids"].ravel(), runs.size)
        return jnp.sum(nodes.at[runs].get(mode="fill", fill_value=0.0), axis=-1)
    count = micro["last"].shape[0]
    sums = jax.ops.segment_sum(values.ravel(), micro["sequence_ids"].ravel(), count + 1)
    return sums[:count].reshape(micro["group_weight"].shape[0], -1)


def sequence_scores(config: ModelConfig, params: Params, micro: Micro) -> jax.Array:
    """Scores of each sequence, read at its last token: `[S, G]`."""
    hidden = _hidden(config, params["model"], micro)
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
