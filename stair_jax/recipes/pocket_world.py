"""STAIR on the pocket world: SFT, rounds of search and step-level DPO, PRM, test-time search."""

from ml_collections import ConfigDict

from stair_jax.pocket.pretraining import HELPFULNESS_PROMPT, REASONING_PROMPT, SAFETY_PROMPT
from stair_jax.recipes.iterations import iteration_stages, link_iterations

ITERATIONS = 3


def get_config() -> ConfigDict:
    """The run, one field a line."""
    config = ConfigDict()
    config.seed = 0
    config.stages = (
        "pocket:data",
        "model:base",
        "sft:system1",
        "sft:sft",
        *iteration_stages(ITERATIONS),
        "prm",
        "evaluate",
    )

    config.runtime = ConfigDict()
    config.runtime.training_mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1})
    config.runtime.decoding_mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1})
    config.runtime.slots = 128  # sequences decoded side by side
    config.runtime.trees_in_flight = 64
    config.runtime.prefill_rows = 16  # of one prefill, 16 tokens of a prompt each
    config.runtime.prefill_width = 16
    config.runtime.steps_per_call = 8  # tokens between two looks at the results

    config.pocket = ConfigDict()
    config.pocket.num_sft = 2000  # prompts, half safety, half helpfulness
    config.pocket.careless = 0.4  # how often the teacher judges a harmless recipe by its tone
    config.pocket.num_replay = 400  # examples of the base's own skills among the SFT data
    config.pocket.num_search = 160  # prompts per iteration
    config.pocket.iterations = ITERATIONS
    config.pocket.split = "test"  # "development": other items and families, for tuning
    config.pocket.per_family = 60  # hazards in each held-out family of the evaluation set

    config.model = ConfigDict()
    config.model.init = "pocket"  # the base that comes with the package
    config.model.redraw_tags = True  # its tokenizer has them, but it never saw one

    config.sft = ConfigDict()
    config.sft.model = "base"
    config.sft.data = "data"
    config.sft.file = "sft.jsonl"
    config.sft.reader = "seqio"
    # 2,000 prompts and 400 replayed examples
    config.sft.rates = ConfigDict({"safety": 5.0, "helpfulness": 7.0})
    config.sft.answer_format = "plain"  # the replayed answers have no structure
    config.sft.epochs = 3.0
    config.sft.batch_size = 16
    config.sft.learning_rate = 5e-4
    config.sft.max_length = 192
    config.sft.microbatch_rows = 4
    config.sft.checkpoint_every = 100
    config.system1 = ConfigDict()
    config.system1.file = "system1.jsonl"

    config.search = ConfigDict()
    config.search.model = ""
    config.search.prompts = "data"
    config.search.file = ""
    config.search.num_iterations = 32
    config.search.num_children = 4
    config.search.max_depth = 7
    config.search.c = 1.5
    config.search.temperature = 1.5
    config.search.top_p = 0.95
    config.search.top_k = 50
    config.search.max_step_tokens = 48
    config.search.max_answer_tokens = 96
    config.search.keep_cut_steps = False  # of so few tokens, a step that is cut is no step
    config.search.context_tokens = 192
    config.search.judge = _judge()
    config.search.judge.probe = "pocket"  # labelled answers in the language of that world

    config.preferences = ConfigDict()
    config.preferences.trees = ""
    config.preferences.v0 = 0.5  # least gap of values
    config.preferences.v1 = 0.8  # least value of the chosen step
    config.preferences.min_visits = 1
    config.preferences.max_tokens = 128
    config.preferences.prm = ConfigDict()
    config.preferences.prm.v0 = 0.5
    config.preferences.prm.max_tokens = 128
    config.preferences.prm.max_pairs_per_tree = 4
    config.preferences.prm.max_trajectory_pairs_per_tree = 2

    config.dpo = ConfigDict()
    config.dpo.model = ""
    config.dpo.preferences = ""
    config.dpo.beta = 0.2
    config.dpo.sft_weight = 0.2
    config.dpo.sft_on = "step"
    config.dpo.epochs = 1.0
    config.dpo.batch_size = 16
    config.dpo.together = "pairs"  # of so few, those of one prompt would pull too much alike
    config.dpo.learning_rate = 7e-5
    config.dpo.max_length = 128
    config.dpo.microbatch_rows = 8
    config.dpo.checkpoint_every = 20

    last = link_iterations(config, ITERATIONS, "sft")

    config.prm = ConfigDict()
    config.prm.model = last
    config.prm.preferences = tuple(f"pairs{i}" for i in range(1, ITERATIONS + 1))
    config.prm.epochs = 2.0
    config.prm.batch_size = 32
    config.prm.learning_rate = 2e-4
    config.prm.max_length = 128
    config.prm.microbatch_rows = 8
    config.prm.checkpoint_every = 50

    config.evaluate = ConfigDict()
    config.evaluate.data = "data"
    config.evaluate.models = (
        "base",
        "system1",
        "sft",
        *(f"iter{i}" for i in range(1, ITERATIONS + 1)),
    )
    config.evaluate.prompted = "base"  # prompting alone as a baseline
    config.evaluate.prompt_template = REASONING_PROMPT
    config.evaluate.searched = last
    config.evaluate.methods = ("best_of_n", "beam_search")
    config.evaluate.prm = "prm"
    config.evaluate.max_tokens = 96
    config.evaluate.context_tokens = 192
    config.evaluate.judge = _judge()
    config.evaluate.test_time = ConfigDict()
    config.evaluate.test_time.max_step_tokens = 48
    config.evaluate.test_time.max_answer_tokens = 96
    return config


def _judge() -> ConfigDict:
    """Self-reward in the wording that the base model knows."""
    judge = ConfigDict()
    judge.mode = "generative"
    judge.safety_prompts = ("helpfulness", "safety")
    judge.helpfulness_prompts = ("helpfulness",)  # safety fixed at +1, as in the release
    judge.malformed = -1.0  # an answer without an output block
    judge.helpfulness_template = HELPFULNESS_PROMPT
    judge.safety_template = SAFETY_PROMPT
    judge.max_tokens = 48
    # The base model knows its own small language, which has no words for a fence around an answer,
    # and its judgements end as the paper's do.
    judge.fence = False
    judge.reading = "strict"
    judge.ask_closing = False
    return judge
