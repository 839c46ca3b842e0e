"""The base model of the pocket world, from nothing (stair_jax/pocket/base)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One stage: data, tokenizer, training."""
    config = ConfigDict()
    config.seed = 0
    config.stages = ("pretrain",)
    config.runtime = ConfigDict()

    config.pretrain = ConfigDict()
    config.pretrain.num_shards = 24  # parts of the data, each made by one process
    config.pretrain.shard_size = 100_000  # examples a part
    config.pretrain.batch_size = 64  # rows of 256 tokens
    config.pretrain.learning_rate = 2e-3
    config.pretrain.warmup_ratio = 0.03
    config.pretrain.weight_decay = 0.05
    config.pretrain.b2 = 0.98
    config.pretrain.checkpoint_every = 2000
    return config
