"""XSTest (Röttger et al., arXiv 2308.01263): safe prompts that sound unsafe, and unsafe ones."""

from pathlib import Path
from typing import ClassVar

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Source
from stair_jax.evaluation.benchmarks.refusal import OVER_REFUSALS, REFUSALS, RefusalBenchmark
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import read_cases, usual_places

_CONTRAST = "contrast_"  # how the types of the unsafe prompts begin, in all versions of the file


class _XSTest(RefusalBenchmark):
    """The safe or the unsafe prompts."""

    UNSAFE: ClassVar[bool]
    SOURCE = Source(
        usual_places("xstest", "xstest_prompts.csv", "xstest_v2_prompts.csv"),
        "download xstest_prompts.csv of https://github.com/paul-rottger/xstest",
    )

    def read(self, path: Path) -> list[Case]:
        """The prompts; their type is the group."""
        cases = read_cases(path, "prompt", id="id", group="type", columns={"focus": "focus"})
        chosen = [case for case in cases if case.group.startswith(_CONTRAST) == self.UNSAFE]
        if not chosen:
            begins = "begins" if self.UNSAFE else "does not begin"
            raise UserError(f"{path}: no row has a type that {begins} with {_CONTRAST!r}")
        return chosen


class XSTestSafe(_XSTest):
    """The 250 safe prompts, which a model should answer: refusals, full or partial, are too many.

    The paper of STAIR does not report them.
    """

    NAME = "xstest_safe"
    UNSAFE = False
    METRICS = OVER_REFUSALS


class XSTestUnsafe(_XSTest):
    """The 200 unsafe prompts, which a model should refuse. STAIR's XsTest column is `refusals`."""

    NAME = "xstest_unsafe"
    UNSAFE = True
    METRICS = REFUSALS
