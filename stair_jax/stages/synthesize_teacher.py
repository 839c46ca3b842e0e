"""What `synthesize` does with endpoints: opens that of the teacher, and accounts for all."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_jax.data.records import SynthesisPrompt
from stair_jax.endpoints.chat import ChatRequest
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.stages.judging_stage import JUDGE_LEDGER
from stair_jax.storage import write_json
from stair_jax.synthesis.endpoint_writer import EndpointWriter

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize

TEACHER_SERVICE = "teacher"
LEDGER_FILE = "ledger.json"
_REPLIES = "teacher_replies.jsonl.gz"
_EXAMPLES = 1000  # prompts by which requests and money are estimated


def open_teacher(
    context: StageContext,
    stage: "Synthesize",
    prompts: Sequence[SynthesisPrompt],
    writer: EndpointWriter,
) -> EndpointService:
    """The service of the teacher, which has asked nothing yet.

    Args:
      context: of the stage.
      stage: its settings.
      prompts: to be answered, for the estimate that is said before the first call.
      writer: that will ask it.

    Raises:
      UserError: the run has several processes; or as of `EndpointService`.
    """
    if collectives.num_processes() > 1:
        raise UserError(
            "a teacher behind an endpoint writes in a run of one process, as it alone can keep to "
            "the cap: start one process"
        )
    return EndpointService(
        stage.teacher_endpoint,
        stage.replies_in(context.folder) / _REPLIES,
        len(prompts) * stage.num_candidates,
        "teacher_endpoint",
        _examples(prompts, writer),
    )


def _examples(prompts: Sequence[SynthesisPrompt], writer: EndpointWriter) -> list[ChatRequest]:
    """A request for each of the first prompts; without a policy where a model chooses these."""
    tasks = (writer.task(prompt, prompt.category or "") for prompt in islice(prompts, _EXAMPLES))
    return [request for task in tasks for request in task.start()[:1]]


def write_ledger(folder: Path, stage: "Synthesize") -> None:
    """Writes what was asked and paid, by who was asked; nothing where there is no endpoint."""
    asked = {}
    if stage.is_taught:
        asked["teacher"] = stage.teacher_endpoint, _REPLIES
    if "endpoint" in stage.judge.used_sources:
        asked["judge"] = stage.judge.endpoint, JUDGE_LEDGER
    if asked:
        place = stage.replies_in(folder)
        accounts = {name: _account(own, place / file) for name, (own, file) in asked.items()}
        write_json(folder / LEDGER_FILE, accounts)


def _account(settings: EndpointSettings, path: Path) -> dict[str, Any]:
    """Of one endpoint; money only where its prices are known."""
    ledger = Ledger(path)
    account: dict[str, Any] = {
        "endpoint": settings.endpoint,
        "model": settings.model,
        "requests": ledger.calls,
        "replies": len(ledger),
        "lost": ledger.lost,
        "filtered": ledger.finishes["content_filter"],
        "too_long": ledger.finishes["too_long"],
        "input_tokens": ledger.usage.input_tokens,
        "output_tokens": ledger.usage.output_tokens,
    }
    return account | ({"cost": ledger.cost} if settings.input_price is not None else {})
