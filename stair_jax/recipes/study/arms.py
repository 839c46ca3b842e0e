"""The arms of the study on real models: one config for each experiment, all from the base.

An experiment that goes on from another makes it again by the same seed, or takes over its stages:
`--reuse=WORKDIR`. Each evaluates its own arms alone.
"""

from ml_collections import ConfigDict

from stair_jax.recipes.iterations import iteration_stages, link_iterations
from stair_jax.recipes.study.real import (
    BASE,
    BENCHMARKS,
    CONTRAST,
    ITERATIONS,
    SFT,
    SYSTEM1,
    add_contrast,
    add_direct,
    ask,
    base_config,
)

OURS = ("our_search", "our_pairs", "ours")
AVERAGE = "our_average"
_REFUSING = ("rule", "reference", "model")  # who judges answers to harmless prompts, in order


def base(model: str = "") -> ConfigDict:
    """The checkpoint, and asked to think first: greedy, so that no seed changes its answers."""
    config = base_config(model)
    ask(config, BASE, ("base",))
    config.evaluate.prompted = "base"
    return config


def sft(model: str = "") -> ConfigDict:
    """SFT on structured answers: STAIR-SFT."""
    config = base_config(model)
    ask(config, (*BASE, SFT), (SFT,))
    return config


def system1(model: str = "") -> ConfigDict:
    """SFT on final answers alone."""
    config = base_config(model)
    ask(config, (*BASE, *add_direct(config)), (SYSTEM1,))
    return config


def contrast(model: str = "") -> ConfigDict:
    """SFT with contrast rows, from which our recipe goes on."""
    config = base_config(model)
    ask(config, (*BASE, *add_contrast(config)), (CONTRAST,))
    return config


def stair(number: int, model: str = "") -> ConfigDict:
    """The paper's recipe to iteration `number`: search by the model itself, step-level DPO."""
    config = base_config(model)
    last = link_iterations(config, number, SFT)
    ask(config, (*BASE, SFT, *iteration_stages(number)), (last,))
    return config


def ours(number: int, model: str = "") -> ConfigDict:
    """Our recipe to iteration `number`; what it changes is in `add_ours`."""
    config = base_config(model)
    last = add_ours(config, number)
    ask(config, (*BASE, *add_contrast(config), *iteration_stages(number, OURS)), (last,))
    return config


def our_average(model: str = "") -> ConfigDict:
    """The mean of the policies of our recipe's iterations."""
    config = base_config(model)
    add_ours(config, ITERATIONS)
    ask(config, (*BASE, *add_contrast(config), *all_of_ours(config)), (AVERAGE,))
    return config


def all_of_ours(config: ConfigDict) -> tuple[str, ...]:
    """The stages of all iterations of our recipe, and of the mean of their policies."""
    first, *others = (f"{OURS[2]}{i}" for i in range(1, ITERATIONS + 1))
    config[AVERAGE] = ConfigDict({"model": first, "others": tuple(others)})
    return (*iteration_stages(ITERATIONS, OURS), f"average:{AVERAGE}")


def add_ours(config: ConfigDict, count: int) -> str:
    """What our recipe changes: who judges, wrong beginnings, over-refusal, length, balance.

    Returns:
      The stage that makes the last policy.
    """
    last = link_iterations(config, count, CONTRAST, OURS)
    use_base_as_judge(config)
    config.search.judge.harmless_refusals = "unsafe"  # as bad as a leak
    config.search.forced_starts = ConfigDict({"share": 0.25, "forged_tags": 0.1})
    config.search.more_pairs = ConfigDict({"share_rollouts": True})
    config.preferences.well_formed = True
    config.dpo.length_penalty = 0.01  # of beta 0.1: a nat for 10 tokens
    config.dpo.balance = "outcome"  # as many pairs teach to refuse as to comply
    return last


def use_base_as_judge(config: ConfigDict) -> None:
    """Rule, reference and the untouched base judge the searches.

    The answers to safety prompts have rewards from -1 to 1 by them, and not from -3 to 3, so that a
    step is to be preferred as soon as more than half of its answers are good.
    """
    config.search.judge_model = "base"
    config.search.judge.update(judge_of_base())
    config.preferences.v1 = 0.0


def judge_of_base() -> dict[str, object]:
    """Refusals by rule, sums by their reference, the rest by the untouched base, calibrated."""
    return {
        "safety_prompts": ("safety",),
        "safety_prompts_source": "rule",
        "helpfulness_prompts_source": _REFUSING,
        "mode": "expected",
        "safety_score": "expected",
        "calibrate": True,
    }


def trees(model: str = "") -> ConfigDict:
    """Other uses of the first search: DPO on whole answers, and SFT on good ones.

    Of either there are at most as many examples as there are pairs of steps.
    """
    config = base_config(model)
    config.search1 = ConfigDict({"model": SFT, "file": "prompts1.jsonl"})
    add_uses_of_trees(config)
    before = (*BASE, SFT, "search:search1", *USES_OF_TREES)
    ask(config, before, ("dpo_full", "sft_trees"))
    return config


USES_OF_TREES = (
    "preferences:full_pairs",
    "dpo:dpo_full",
    "preferences:good_answers",
    "sft:sft_trees",
)


def add_uses_of_trees(config: ConfigDict) -> None:
    """The sections of `USES_OF_TREES`."""
    own = {"trees": "search1", "match_steps": True}
    config.full_pairs = ConfigDict({**own, "variant": "trajectory"})
    config.dpo_full = ConfigDict({"model": SFT, "preferences": "full_pairs"})
    config.good_answers = ConfigDict({**own, "write_sft": True})
    config.sft_trees = ConfigDict({"model": SFT, "data": "good_answers", "held_out": 0.05})
    config.sft_trees.epochs = config.dpo.epochs
    config.sft_trees.learning_rate = config.dpo.learning_rate


def offline(model: str = "") -> ConfigDict:
    """DPO and SACPO on whole answers that are given, from the System-1 model.

    Chosen is the answer of the row, rejected the model's own. SACPO as in the paper: first for
    helpfulness, with beta 0.1, then for safety, with beta / lambda 0.025.
    """
    config = base_config(model)
    _add_writing(config)
    config.given = ConfigDict({"model": SYSTEM1, "prompts": "direct_files", "file": "sft.jsonl"})
    config.given.update({"num_candidates": 1, "pairs": "given_own", "v0": None})
    both = ("safety", "helpfulness")
    for name, first, kinds, beta in (
        ("dpo_direct", SYSTEM1, both, 0.1),
        ("helpful", SYSTEM1, both[1:], 0.1),
        ("sacpo", "helpful", both[:1], 0.025),
    ):
        config[name] = ConfigDict({"model": first, "kinds": kinds, "beta": beta})
        config[name].update({"preferences": "given", "sft_weight": 0.0})
    before = (
        *BASE,
        *add_direct(config),
        "synthesize:given",
        "dpo:dpo_direct",
        "dpo:helpful",
        "dpo:sacpo",
    )
    ask(config, before, ("dpo_direct", "sacpo"))
    return config


def self_rewarding(model: str = "") -> ConfigDict:
    """Three rounds of the best of the model's answers against the worst, as it judges itself."""
    config = base_config(model)
    _add_writing(config)
    stages = add_direct(config)
    previous = SYSTEM1
    for i in range(1, ITERATIONS + 1):
        answers, policy = f"answers{i}", f"self_rewarding{i}"
        config[answers] = ConfigDict({"model": previous, "file": f"prompts{i}.jsonl"})
        config[answers].update({"pairs": "best_worst", "v0": 0.5, "v1": 0.0})
        config[policy] = ConfigDict({"model": previous, "preferences": answers})
        stages += (f"synthesize:{answers}", f"dpo:{policy}")
        previous = policy
    models = tuple(f"self_rewarding{i}" for i in range(1, ITERATIONS + 1))
    ask(config, (*BASE, *stages), models)
    return config


def deliberative(model: str = "") -> ConfigDict:
    """Deliberative Alignment: answers written beside a policy, judged, learnt without the policy.

    The model that writes is the one of STAIR-SFT, which reasons already, as those are that the
    paper compares with.
    """
    config = base_config(model)
    _add_writing(config)
    config.deliberations = ConfigDict({"model": SFT, "template": "deliberative"})
    config.deliberations.update({"answer_format": "structured", "default_policies": True})
    config.deliberations.update({"categories": "model", "max_per_prompt": 2})
    config.deliberations.judge = ConfigDict(judge_of_base())
    config.deliberations.judge_model = "base"
    config.deliberative = ConfigDict({"model": SFT, "data": "deliberations", "held_out": 0.05})
    before = (*BASE, SFT, "synthesize:deliberations", "sft:deliberative")
    ask(config, before, ("deliberative",))
    return config


def test_time(model: str = "") -> ConfigDict:
    """The process reward model, and searches by it and by self-reward, on 60 cases of each set."""
    config = base_config(model)
    last = link_iterations(config, ITERATIONS, SFT)
    config.prm.model = last
    config.prm.preferences = tuple(f"pairs{i}" for i in range(1, ITERATIONS + 1))
    before = (*BASE, SFT, *iteration_stages(ITERATIONS), "prm")
    ask(config, before, (last,))
    config.evaluate.searched = last
    config.evaluate.prm = "prm"
    methods = ("best_of_n:4", "best_of_n:8", "beam_search:2x4")
    config.evaluate.methods = (*methods, *(_by_self_reward(method) for method in methods))
    config.evaluate.judge = ConfigDict({"mode": "expected", "malformed": -1.0})
    config.evaluate.limit = 60
    # A beginning that an attack sets goes with no search.
    config.evaluate.benchmarks = tuple(b for b in BENCHMARKS if not b.endswith(":prefill"))
    return config


def _by_self_reward(method: str) -> str:
    name, _, size = method.partition(":")
    return f"{name}_self_reward:{size}"


def _add_writing(config: ConfigDict) -> None:
    """The section of the stages that write answers to judge, from the System-1 model."""
    search = config.search
    config.synthesize = ConfigDict({"prompts": "files", "file": "prompts1.jsonl"})
    config.synthesize.update({"num_prompts": search.num_prompts, "num_candidates": 4})
    config.synthesize.update({"answer_format": "plain", "temperature": 0.8, "top_p": 0.95})
    config.synthesize.update({"max_answer_tokens": 640, "max_prompt_tokens": 1024})
    config.synthesize.update({"context_tokens": search.context_tokens, "dtype": search.dtype})
    config.synthesize.judge = search.judge.copy_and_resolve_references()
    config.synthesize.judge.mode = "expected"
