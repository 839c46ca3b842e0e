"""The study's arms in the pocket world: STAIR, its baselines, and the recipe that we recommend."""

from ml_collections import ConfigDict

from stair_jax.recipes import pocket_world
from stair_jax.recipes.iterations import iteration_stages, link_iterations
from stair_jax.recipes.pocket_world import ITERATIONS

OURS = ("our_search", "our_pairs", "ours")
_SELF_REWARDING = ("answers", "self_rewarding")
_PROMPTS = 480  # of all searches together


def get_config() -> ConfigDict:
    """The run: the stages of the recipe `pocket` as they are, then those of the other arms."""
    config = pocket_world.get_config()
    own = [stage for stage in config.stages if stage != "evaluate"]
    numbers = range(1, ITERATIONS + 1)
    _add_trees(config)
    _add_once(config)
    _add_offline(config)
    _add_synthesis(config)
    _add_ours(config)
    config.stages = (
        *own,
        "preferences:full_pairs",
        "dpo:dpo_full",
        "preferences:good_answers",
        "sft:sft_trees",
        "dpo:once_3_epochs",
        *(
            f"{kind}{i}"
            for i in numbers[1:]
            for kind in ("search:sft_search", "preferences:sft_pairs")
        ),
        "dpo:all_at_once",
        "pocket:more_data",
        "dpo:dpo_direct",
        "dpo:helpful",
        "dpo:sacpo",
        *(
            f"{kind}:{name}{i}"
            for i in numbers
            for kind, name in zip(("synthesize", "dpo"), _SELF_REWARDING, strict=True)
        ),
        "synthesize:deliberations",
        "sft:deliberative",
        "pocket:our_data",
        "sft:sft_contrast",
        *iteration_stages(ITERATIONS, OURS),
        "evaluate",
        "evaluate:test_time",
    )
    arms = (
        "base",
        "system1",
        "sft",
        *(f"iter{i}" for i in numbers),
        "dpo_full",
        "sft_trees",
        "once_3_epochs",
        "all_at_once",
        "dpo_direct",
        "sacpo",
        *(f"{_SELF_REWARDING[1]}{i}" for i in numbers),
        "deliberative",
        "sft_contrast",
        *(f"{OURS[2]}{i}" for i in numbers),
    )
    _evaluate(config, arms)
    return config


def _add_trees(config: ConfigDict) -> None:
    """Other uses of the first search: DPO on whole answers, and SFT on good ones.

    Of either there are at most as many examples as there are pairs of steps.
    """
    config.full_pairs = ConfigDict(
        {"trees": "search1", "variant": "trajectory", "match_steps": True}
    )
    config.dpo_full = ConfigDict({"model": "sft", "preferences": "full_pairs"})
    config.good_answers = ConfigDict({"trees": "search1", "write_sft": True, "match_steps": True})
    config.sft_trees = ConfigDict({"model": "sft", "data": "good_answers", "rates": None})
    config.sft_trees.epochs = config.dpo.epochs
    config.sft_trees.learning_rate = config.dpo.learning_rate


def _add_once(config: ConfigDict) -> None:
    """One round in place of three: three epochs over its pairs, or the prompts of all at once."""
    config.once_3_epochs = ConfigDict({"model": "sft", "preferences": "pairs1", "epochs": 3.0})
    pairs = ["pairs1"]
    for i in range(2, ITERATIONS + 1):
        config[f"sft_search{i}"] = ConfigDict({"model": "sft", "file": f"prompts{i}.jsonl"})
        config[f"sft_pairs{i}"] = ConfigDict({"trees": f"sft_search{i}"})
        pairs.append(f"sft_pairs{i}")
    config.all_at_once = ConfigDict({"model": "sft", "preferences": tuple(pairs)})


def _add_offline(config: ConfigDict) -> None:
    """DPO and SACPO on direct answers that no model has sampled, from the System-1 model.

    SACPO as in the paper: first helpfulness, with beta 0.1, then safety, with beta / lambda 0.025.
    """
    config.more_data = config.pocket.copy_and_resolve_references()
    config.more_data.all_prompts = True
    config.more_data.num_pairs = _PROMPTS
    pairs = {"preferences": "more_data", "sft_weight": 0.0}
    for name, first, file, beta in (
        ("dpo_direct", "system1", "pairs.jsonl", 0.1),
        ("helpful", "system1", "helpfulness_pairs.jsonl", 0.1),
        ("sacpo", "helpful", "safety_pairs.jsonl", 0.025),
    ):
        config[name] = ConfigDict({"model": first, "file": file, "beta": beta, **pairs})


def _add_synthesis(config: ConfigDict) -> None:
    """Self-Rewarding from the System-1 model, and Deliberative Alignment from the SFT model.

    The latter is the one that reasons already, as those are that the paper compares with. It learns
    those of its answers that the untouched base finds good. The pocket world has no words for a
    policy, and a model of it leaves the format where there are any, so that its prompts are bare.
    """
    config.synthesize = ConfigDict()
    config.synthesize.model = ""
    config.synthesize.prompts = "data"
    for name in ("max_answer_tokens", "context_tokens"):
        config.synthesize[name] = config.search[name]
    config.synthesize.judge = config.search.judge.copy_and_resolve_references()
    config.synthesize.max_prompt_tokens = 96
    answers, policy = _SELF_REWARDING
    previous = "system1"
    for i in range(1, ITERATIONS + 1):
        config[f"{answers}{i}"] = ConfigDict(
            {
                "model": previous,
                "file": f"prompts{i}.jsonl",
                "num_candidates": 8,
                "answer_format": "plain",
                "temperature": 2.0,  # below, most of the eight are alike
                "top_p": 0.99,
                "pairs": "best_worst",
                "v0": config.preferences.v0,
                "v1": config.preferences.v1,
            }
        )
        config[f"{policy}{i}"] = ConfigDict({"model": previous, "preferences": f"{answers}{i}"})
        previous = f"{policy}{i}"
    config.deliberations = ConfigDict(
        {"model": "sft", "prompts": "more_data", "file": "prompts.jsonl"}
    )
    config.deliberations.min_reward = 2.5  # of 3, which a refusal of a harmless request has not
    config.deliberations.judge = ConfigDict({"source": "model"})
    config.deliberations.judge_model = "base"
    config.deliberative = ConfigDict({"model": "sft", "data": "deliberations", "rates": None})


def _add_ours(config: ConfigDict) -> None:
    """Our recipe beside the paper's, whose searches and DPO keep their settings."""
    link_ours(config)
    search, _, policy = OURS
    for i in range(1, ITERATIONS + 1):
        config[f"{search}{i}"].judge = ConfigDict({"harmless_refusals": "unsafe"})
        config[f"{policy}{i}"].adaptive_rates = 1.0


def link_ours(config: ConfigDict) -> None:
    """What we recommend against over-refusal, as far as it is in the data.

    Contrast data in SFT and search; some search prompts begin wrong, and the answer has to recover.
    Beside it a refusal of a harmless request counts as much as a leak, and DPO draws the kind of
    pairs more often of which the trees show that more is to be gained.
    """
    config.our_data = ConfigDict({"contrasts": 0.25, "forced_starts": 0.2, "labels": True})
    config.sft_contrast = ConfigDict({"data": "our_data"})
    link_iterations(config, ITERATIONS, "sft_contrast", OURS, "our_data")


def _evaluate(config: ConfigDict, arms: tuple[str, ...]) -> None:
    """Greedy answers of all arms, and search at test time by the PRM and by self-reward."""
    config.test_time = ConfigDict({"models": (), "prompted": ""})
    config.test_time.searched = f"iter{ITERATIONS}"
    config.test_time.prm = "prm"
    config.test_time.methods = (
        *config.evaluate.methods,
        *(f"{method}_self_reward" for method in config.evaluate.methods),
    )
    config.evaluate.models = arms
    config.evaluate.searched = ""
    config.evaluate.methods = ()
    config.evaluate.prm = ""
