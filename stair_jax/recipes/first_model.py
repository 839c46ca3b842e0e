"""All of STAIR once on a real model of 0.1B, on two CPU cores in a quarter of an hour."""

from ml_collections import ConfigDict

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DATA = "data/study"
_CONTEXT = 320  # tokens of prompt and answer


def first_model(model: str = MODEL) -> ConfigDict:
    """SFT, a small search, pairs, step-level DPO, the process reward model, an evaluation.

    Args:
      model: hub id or Hugging Face folder of the checkpoint.
    """
    config = ConfigDict()
    config.seed = 0
    config.stages = (
        "files",
        "model:base",
        "sft",
        "search",
        "preferences",
        "dpo",
        "prm",
        "evaluate",
    )
    config.runtime = ConfigDict()
    config.runtime.slots = 32
    config.runtime.trees_in_flight = 16
    config.runtime.steps_per_call = 4

    config.files = ConfigDict()
    config.files.sft = f"{DATA}/sft.jsonl"
    config.files.prompts = (f"{DATA}/prompts1.jsonl",)

    config.model = ConfigDict()
    config.model.init = model
    config.model.dtype = "float32"  # CPUs are slower in bfloat16

    config.sft = _training(learning_rate=1e-3, batch_size=8)
    config.sft.model = "base"
    config.sft.data = "files"
    config.sft.epochs = 1.0
    config.sft.max_length = 640  # of a row, in which several examples lie
    config.sft.microbatch_rows = 1
    config.sft.held_out = 24.0  # rows
    config.sft.eval_every = 11

    config.search = ConfigDict()
    config.search.model = "sft"
    config.search.prompts = "files"
    config.search.num_prompts = 16
    config.search.num_iterations = 16
    config.search.num_children = 4
    config.search.temperature = 1.0
    config.search.max_step_tokens = 96
    config.search.max_answer_tokens = 160
    config.search.max_prompt_tokens = 128
    config.search.context_tokens = _CONTEXT
    config.search.judge_model = "base"  # after SFT on answers a model judges no more
    config.search.judge = _judge()

    config.preferences = ConfigDict()
    config.preferences.trees = "search"
    config.preferences.v0 = 0.3
    config.preferences.v1 = 0.0
    config.preferences.min_visits = 1  # of 16 iterations
    config.preferences.max_tokens = _CONTEXT
    # Of 16 trees; all pairs would take DPO and the PRM a quarter of an hour.
    config.preferences.max_pairs_per_tree = 6
    config.preferences.prm = ConfigDict()
    config.preferences.prm.max_pairs_per_tree = 4
    config.preferences.prm.max_trajectory_pairs_per_tree = 2

    config.dpo = _training(learning_rate=2e-4, batch_size=8)
    config.dpo.model = "sft"
    config.dpo.preferences = "preferences"
    config.dpo.sft_on = "answer"

    config.prm = _training(learning_rate=1e-3, batch_size=16)
    config.prm.model = "dpo"
    config.prm.preferences = ("preferences",)
    config.prm.held_out = 0.2  # of the prompts

    config.evaluate = ConfigDict()
    config.evaluate.models = ("base", "sft", "dpo")
    config.evaluate.benchmarks = (
        f"{DATA}/eval/strongreject_none.jsonl@refusal",
        f"{DATA}/eval/xstest_safe_all.jsonl@refusal",
        f"{DATA}/eval/gsm8k_32.jsonl@number",
    )
    config.evaluate.limit = 20  # of 32 each
    config.evaluate.max_tokens = 160
    config.evaluate.context_tokens = _CONTEXT
    return config


def _judge() -> ConfigDict:
    """Refusals by rule, sums by their reference, all else by one rating of the untouched base."""
    judge = ConfigDict()
    judge.safety_prompts = ("safety",)
    judge.safety_prompts_source = "rule"
    judge.helpfulness_prompts_source = ("rule", "reference", "model")
    judge.mode = "expected"  # one forward pass
    judge.helpfulness_template = "digit"  # the wording that this model understands best
    judge.malformed = -1.0
    return judge


def _training(learning_rate: float, batch_size: int) -> ConfigDict:
    """Adapters: less than three quarters of the time of training all parameters."""
    section = ConfigDict()
    section.lora = ConfigDict({"rank": 16, "train_tags": True})
    section.learning_rate = learning_rate
    section.batch_size = batch_size
    section.microbatch_rows = 2
    section.max_length = _CONTEXT
    section.logps_chunks = 4
    section.checkpoint_every = 0
    section.reader = "datasets"  # TensorFlow, which the other one is of, takes 20 s to import
    return section
