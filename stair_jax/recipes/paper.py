"""STAIR on a real model: the paper's numbers, shared by the recipes of all models.

Each field is explained by the settings of its stage (docs/configuration.md says where); a comment
here says where a number comes from. [P] is the paper, [C] its released code, [grid] one value of
the paper's grid of values, [ours] not stated by either.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from stair_jax.recipes.iterations import iteration_stages, link_iterations
from stair_jax.text.judge_wordings import DEFAULTS

ITERATIONS = 3  # K [P]


def sft(model: str) -> ConfigDict:
    """Supervised fine-tuning of a checkpoint on structured answers."""
    config = _config(model, model)
    config.files.sft = "data/sft.jsonl"
    config.stages = ("files", "model:base", "sft")
    return config


def iteration(model: str, init: str, number: int) -> ConfigDict:
    """Search, pairs and step-level DPO of one iteration, from the model of the one before."""
    config = _config(model, init)
    config.files.prompts = (f"data/prompts{number}.jsonl",)
    config.stages = ("files", "model:base", "search", "preferences", "dpo")
    return config


def prm(model: str, init: str, pairs: tuple[str, ...]) -> ConfigDict:
    """The process reward model, from the last policy and the pairs of all iterations."""
    config = _config(model, init)
    config.files.prm = pairs
    config.prm.preferences = ("files",)
    config.stages = ("files", "model:base", "prm")
    return config


def stair(model: str) -> ConfigDict:
    """All of it: SFT, three iterations, the process reward model, and both exported."""
    config = _config(model, model)
    config.files.sft = "data/sft.jsonl"
    config.files.prompts = tuple(f"data/prompts{i}.jsonl" for i in range(1, ITERATIONS + 1))
    config.stages = (
        "files",
        "model:base",
        "sft",
        *iteration_stages(ITERATIONS),
        "prm",
        "export:policy",
        "export:reward",
    )
    last = link_iterations(config, ITERATIONS, "sft")
    config.prm.model = last
    config.prm.preferences = tuple(f"pairs{i}" for i in range(1, ITERATIONS + 1))
    config.policy = ConfigDict({"model": last})
    config.reward = ConfigDict({"model": "prm"})
    return config


def _config(model: str, init: str) -> ConfigDict:
    """Every section; a run uses those of its stages.

    `model` is the hub id of the checkpoint that all begins with, `init` what this run begins with.
    """
    config = ConfigDict()
    config.seed = 0
    config.stages = ()
    config.runtime = _runtime()

    config.files = ConfigDict()
    config.files.sft = ""
    config.files.prompts = ()
    config.files.dpo = ""
    config.files.prm = ()
    config.files.trees = ()
    config.files.kinds = ConfigDict()

    config.model = ConfigDict()
    config.model.init = init
    config.model.architecture = model
    config.model.dtype = ""  # of the checkpoint
    config.model.system = placeholder(str)  # no system turn but the template's own [P]
    # That of Llama 3.1 writes a system turn with a date, whatever it is given.
    config.model.chat_template = "llama3_undated" if "Llama-3" in model else ""  # [P]
    config.model.tag_noise = 0.5  # [ours]
    config.model.redraw_tags = False

    config.sft = _training(learning_rate=5e-6, batch_size=128)  # [grid], [P]
    config.sft.model = "base"
    config.sft.data = "files"
    config.sft.epochs = 3.0  # [P]
    config.sft.max_length = 2048  # [ours]
    config.sft.answer_format = "structured"
    config.sft.overlong = "drop"
    config.sft.reader = "seqio"

    config.search = ConfigDict()
    config.search.model = "base"
    config.search.prompts = "files"
    config.search.file = "prompts1.jsonl"
    config.search.num_prompts = 0  # all: the paper has 5k safety and 5k helpfulness
    config.search.num_iterations = 200  # [P]
    config.search.num_children = 4  # [P]
    config.search.max_depth = 7  # [C]
    config.search.c = 1.5  # [P]
    config.search.score = "ucb1"  # [P]
    config.search.prior = "uniform"  # of "puct" [C]
    config.search.temperature = 1.2  # [P, C]
    config.search.top_p = 0.9  # [P, C]
    config.search.top_k = 50  # [P, C]
    config.search.max_step_tokens = 2048  # [C]
    config.search.keep_cut_steps = True  # [C]
    config.search.max_answer_tokens = 2048  # [ours]
    config.search.max_prompt_tokens = 1536  # [ours]
    config.search.context_tokens = 4096  # [ours]
    config.search.dtype = "bfloat16"
    config.search.judge = ConfigDict()
    config.search.judge.mode = "generative"  # [P]; "expected" costs one forward pass
    config.search.judge.malformed = -1.0  # an answer without an output block [ours]
    config.search.judge.temperature = 0.6  # [C]
    config.search.judge.top_p = 0.9  # [C]
    config.search.judge.max_tokens = 512  # [ours]
    config.search.judge.safety_rule = "model"  # [P]; "paper_release" is that of [C]
    # By name, or a text of your own; `stair-jax judge check MODEL` tries all of ours. Labels and
    # closing line of "rating" and "verdict" are those of [C].
    config.search.judge.helpfulness_template = DEFAULTS["helpfulness"]  # [ours]
    config.search.judge.safety_template = DEFAULTS["safety"]  # [ours]
    config.search.judge.probe = "default"  # labelled cases, judged before the first tree [ours]
    config.search.reward = ConfigDict()
    config.search.reward.family = "s"  # R = S H + 2 S [P]
    config.search.reward.c2 = -1.0  # [P]

    config.preferences = ConfigDict()
    config.preferences.trees = "search"
    config.preferences.variant = "step"  # [P]
    config.preferences.v0 = 0.5  # [C]
    config.preferences.v1 = 0.8  # [C]
    config.preferences.min_visits = 4  # [C]
    config.preferences.max_tokens = 2048  # [C]
    config.preferences.write_sft = False  # True for the ablation "Full (SFT)"
    config.preferences.sft = ConfigDict()
    config.preferences.sft.v1 = 0.8  # [C]
    config.preferences.sft.max_per_prompt = 8  # [C]
    config.preferences.sft.max_tokens = 2048  # [C]
    config.preferences.prm = ConfigDict()
    config.preferences.prm.v0 = 0.5  # [ours]
    config.preferences.prm.max_tokens = 2048  # [ours]
    # 30k trees give about the 70k pairs of the paper.
    config.preferences.prm.max_pairs_per_tree = 2  # [ours]
    config.preferences.prm.max_trajectory_pairs_per_tree = 1  # [ours]

    config.dpo = _training(learning_rate=1e-6, batch_size=128)  # [grid], [P]
    config.dpo.model = "base"
    config.dpo.preferences = "preferences"
    config.dpo.beta = 0.1  # [grid]
    config.dpo.sft_weight = 0.2  # [P]
    config.dpo.sft_on = "answer"  # what the paper's trainer does, by reading it
    config.dpo.epochs = 1.0  # [P]
    config.dpo.max_length = 2048  # that of the pairs [ours]
    config.dpo.layout = "tree"
    config.dpo.together = "siblings"  # [ours]

    config.prm = _training(learning_rate=5e-6, batch_size=256)  # [P]
    config.prm.model = "base"
    config.prm.preferences = ()
    config.prm.epochs = 1.0  # [P]
    config.prm.max_length = 2048  # [ours]

    config.export = ConfigDict()
    config.export.model = ""
    config.export.path = ""  # the folder of the stage
    config.export.dtype = "bfloat16"
    return config


def _runtime() -> ConfigDict:
    """Meshes, slots and trees follow the devices that are found."""
    runtime = ConfigDict()
    runtime.vocab_multiple = 128  # suits all meshes
    runtime.steps_per_call = 4
    return runtime


def _training(learning_rate: float, batch_size: int) -> ConfigDict:
    """What SFT, DPO and PRM have in common."""
    section = ConfigDict()
    section.learning_rate = learning_rate
    # Both are of SFT and DPO; the paper does not say those of the PRM.
    section.warmup_ratio = 0.1  # [P]
    section.weight_decay = 0.0  # [P]
    section.clip_norm = 1.0  # [ours]
    section.batch_size = batch_size
    section.microbatch_rows = 0  # two for each device
    section.logps_chunks = 4
    section.dtype = "bfloat16"
    section.param_dtype = "float32"
    section.mu_dtype = "float32"
    # Learning rates of 1e-6 change a weight by less than bfloat16 can hold.
    section.hf_dtype = "float32"
    section.remat = "full"
    section.checkpoint_every = 50
    section.keep = 2
    return section
