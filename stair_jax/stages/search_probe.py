"""The probe of a stage's judge: made once, recorded beside what it judges, and used again."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.search.judging import calibration
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.judges import Judge, Judgement
from stair_jax.search.judging.probe import ProbeResult, run_probe
from stair_jax.search.judging.probe_cases import ProbeCase, read_cases
from stair_jax.search.judging.probe_settings import SearchJudge
from stair_jax.search.judging.probe_verdict import objection, summarize
from stair_jax.search.judging.probing_worker import Ask
from stair_jax.storage import fingerprint, plain, read_json, write_json

PROBE_FILE = "probe.json"


def probe_judge(
    folder: Path,
    settings: SearchJudge,
    judge: Judge,
    driver: Driver,
    seed: int,
    model: str,
    section: str = "search",
) -> Calibrator | None:
    """Probes the judge of a stage, unless its folder has the record of the same probe.

    With several processes the first one probes, and the others wait for its result.

    Args:
      folder: of the stage.
      settings: of the stage's judge.
      judge: made of `settings`.
      driver: without tasks.
      seed: of the run.
      model: fingerprint of the policy.
      section: of the config, for messages.

    Returns:
      what is to be made of the scores; None: nothing.

    Raises:
      UserError: the judge is of no use to the stage; says what was seen and what to try.
    """
    ask = partial(run_probe, judge, driver, seed=seed)
    return probe_by(ask, folder, settings, seed, model, section)


def probe_by(
    ask: Ask, folder: Path, settings: SearchJudge, seed: int, model: str, section: str = "search"
) -> Calibrator | None:
    """As `probe_judge`, of a judge that `ask` puts the cases to, wherever it is."""
    if not settings.probe:
        return None
    record: dict[str, Any] = {}
    if collectives.is_main():
        record = _probe(ask, folder, settings, seed, model, section)
    record = collectives.broadcast(record)
    if not settings.calibrate:
        return None
    return Calibrator(calibration.from_record(record["calibration"]), settings.safety_score)


def _probe(
    ask: Ask, folder: Path, settings: SearchJudge, seed: int, model: str, section: str
) -> dict[str, Any]:
    cases = read_cases(settings.probe)
    of = fingerprint(plain([cases, settings.judging, seed, model]))
    result = _recorded(folder / PROBE_FILE, of, cases, settings)
    is_new = result is None
    start = time.monotonic()
    if result is None:
        say(f"{folder.name}: judging {len(cases)} labelled cases beforehand")
        result = ask(cases)
    curves = result.fit()
    seconds = f" ({time.monotonic() - start:.1f} s)" if is_new else " (as recorded)"
    say(f"{folder.name}: {summarize(result)}{seconds}")
    for reply in result.replies:
        say(f"{folder.name}: the judge replied {reply}")
    record = {
        "of": of,
        "readable": result.readable,
        "auc": {question: plain(result.auc(question)) for question in curves},
        "calibration": calibration.to_record(curves),
        "replies": list(result.replies),
        "judgements": [plain(judgement) for judgement in result.judgements],
    }
    if is_new:
        write_json(folder / PROBE_FILE, record)
    used = result
    if settings.calibrate:
        used = result.mapped(Calibrator(curves, settings.safety_score))
        say(f"{folder.name}: calibrated, {summarize(used)}")
    limits = settings.min_readable, settings.min_auc
    about = objection(used, *limits, settings.calibrate, section)
    if about is not None:
        raise UserError(
            f"{about}; --redo={folder.name} begins anew with other settings, and "
            f'{section}.judge.probe="" goes on all the same'
        )
    return record


def _recorded(
    path: Path, of: str, cases: list[ProbeCase], settings: SearchJudge
) -> ProbeResult | None:
    """The result that a file holds, if it is that of the same cases, judge, seed and model."""
    record = read_json(path) if path.is_file() else {}
    if record.get("of") != of:
        return None
    judgements = [Judgement(**values) for values in record["judgements"]]
    asked = {kind: settings.questions(kind) for kind in {case.kind for case in cases}}
    return ProbeResult(cases, judgements, asked, record["replies"])
