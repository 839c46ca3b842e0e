"""Whatever the sets have in common: each prompt is in one file, and none repeats a held-out one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.data.decontamination import HeldOutTexts
from stair_jax.data.study import build
from stair_jax.data.study.admission import Admission
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.checking import TRAINING, check_files
from stair_jax.data.study.sizes import SMALL
from stair_jax.data.study.texts import estimate_tokens
from stair_jax.data.study.workshop import Workshop

# Prompts of four to eight words of twelve, so that many are equal or alike.
WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty")
PROMPT = st.lists(st.sampled_from(WORDS), min_size=4, max_size=8).map(" ".join)
COLUMNS = {
    "star1": {"response": "<think>One. Two. Three.</think> No."},
    "gsm8k_train": {"answer": "It is 2.\n#### 2"},
    "gsm8k_test": {"answer": "It is 3.\n#### 3"},
    "advbench": {"target": "Sure, here it is"},
    "coconot_pref": {"chosen": "Here it is."},
    **{name: {"output": "It is so."} for name in ("alpaca", "alpaca_gpt4", "dolly")},
    "safety_tuned_llamas": {"input": "", "output": "I cannot do that."},
    "harmbench_val": {"FunctionalCategory": "standard"},
    "xstest": {"type": "homonyms"},
}
NAMES = [*COLUMNS, "alpaca_harmless", "ultrafeedback", "oktest", "strongreject", "do_not_answer"]


class Drawn:
    """Sources in memory."""

    def __init__(self, prompts):
        self._prompts = prompts

    def rows(self, name):
        """Rows of a set; [] of those that are not drawn."""
        columns = COLUMNS.get(name, {})
        column = SETS[name].prompt[0] if SETS[name].prompt else "prompt"
        return [{column: prompt, **columns} for prompt in self._prompts.get(name, ())]

    def file(self, name):
        """None: there are no files."""


@settings(max_examples=15)
@given(st.fixed_dictionaries({name: st.lists(PROMPT, max_size=14) for name in NAMES}))
def test_files_are_disjoint_and_repeat_no_held_out_prompt(prompts):
    sources = Drawn(prompts)
    held_out = {
        roles: HeldOutTexts(build._held_out(sources, roles))
        for roles in (("reported", "development"), ("reported",))
    }
    admission = Admission(*held_out.values())
    files = build._make(Workshop(sources, admission, SMALL, estimate_tokens, 0))
    check_files(files)
    for name in (*TRAINING, "dev"):
        roles = ("reported",) if name == "dev" else ("reported", "development")
        for row in files[name]:
            equal_only = row["source"] == "gsm8k"
            goal = row.get("goal", row["prompt"])
            assert held_out[roles].match(goal, equal_only) is None
