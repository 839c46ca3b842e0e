"""The probe of a judge as an item, which a worker answers before those that it is made for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stair_jax.cluster.dealer import Dealer
from stair_jax.cluster.work import Order, Report, Worker
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.search.judging.probe import ProbeResult
from stair_jax.search.judging.probe_cases import ProbeCase

PROBE = "the probe of the judge"  # id of the item

Ask = Callable[[Sequence[ProbeCase]], ProbeResult]


@dataclass(frozen=True)
class Probe:
    """The item before all others: the judge on labelled cases."""

    cases: Sequence[ProbeCase]


class ProbingWorker:
    """A worker that probes its judge where it is told to: a `cluster.work.Worker`."""

    def __init__(self, worker: Worker, ask: Ask):
        """Around a worker.

        Args:
          worker: gets all other orders.
          ask: puts cases to the judge, while the worker has no items.
        """
        self._worker, self._ask = worker, ask

    def exchange(self, order: Order, seconds: float) -> Report:
        """Probes, or works."""
        probes = [item for item in order.items if isinstance(item, Probe)]
        if not probes:
            return self._worker.exchange(order, seconds)
        return Report([(PROBE, self._ask(probe.cases)) for probe in probes], wants=1)


def ask_workers(dealer: Dealer) -> Ask:
    """Has one of the workers of a dealer put cases to its judge."""

    def ask(cases: Sequence[ProbeCase]) -> ProbeResult:
        queue = WorkQueue([Probe(cases)], lambda item: PROBE)
        ((probed,),) = dealer.deal(queue)
        result: ProbeResult = probed.result
        return result

    return ask
