"""The verbs of the command line, one short file each.

A verb is a module with

    SUMMARY: str                                     # one line for --help
    def add_flags(parser: ArgumentParser) -> None
    def execute(arguments: Arguments, session: Session) -> int      # the exit status
"""

VERBS = (
    "run",
    "sweep",
    "study",
    "plan",
    "show",
    "report",
    "view",
    "cases",
    "cost",
    "evaluate",
    "table",
    "synthesize",
    "answer",
    "chat",
    "serve",
    "judge",
    "data",
    "completion",
)
