"""One short file a stage of a run.

A stage of kind KIND is the module `stair_jax/stages/KIND.py`, with

    INPUTS: tuple[str, ...]                    # fields of its settings that name earlier stages
    PROCESSES: str                             # optional: "all", or "first" of those of the run
    def run(context: StageContext) -> None     # goes on where it stopped in its folder
    def summary(folder: Path) -> str           # optional: what the run says of the finished stage
    def programs(context: PlanContext) -> list[Program]   # optional: its jitted steps, for a plan
"""

KINDS = (
    "pocket",
    "files",
    "model",
    "export",
    "pretrain",
    "sft",
    "search",
    "preferences",
    "dpo",
    "prm",
    "evaluate",
)
