"""The workload in the shape of a search: what its trees ask for, and when."""

import pytest

from benchmarks import shaped
from stair_jax.testing.scripted_engine import ScriptedEngine, ZeroReplies


class Slow(ScriptedEngine):
    """Completes one request a step, the oldest or the newest."""

    def __init__(self, newest=False):
        super().__init__(ZeroReplies())
        self.newest = newest

    def step(self):
        return [self.complete(self.waiting.pop(-1 if self.newest else 0))]


def drive(engine, trees, **options):
    return shaped.drive(
        engine, trees, shaped.fixed_length, warm=0.0, seconds=0.05, scale=0.1, **options
    )


@pytest.mark.parametrize("lockstep", [False, True])
def test_an_iteration_asks_for_steps_a_rollout_and_a_judgement(lockstep):
    engine = Slow()
    measured = drive(engine, 3, lockstep=lockstep)
    assert not engine.handles and not engine.pending
    own = [request for request in engine.seen if request.id[0] == 1]
    whats = [request.id[2] for request in own]
    assert whats[:12] == (["step"] * 4 + ["rollout", "judge"]) * 2
    lengths = {(r.id[2], r.sampling.max_tokens) for r in own[6:]}
    assert lengths == {("step", 12), ("rollout", 30), ("judge", 10)}
    # A path of four iterations, then the prompt again; tree 1 of 3 is a third on its way.
    starts = [len(r.parent.tokens) for r in own if r.id[2] == "step" and r.id[3] == 0]
    assert starts[:6] == ([12, 24, 36, 48, 12, 24] if lockstep else [24, 25, 37, 12, 24, 36])
    firsts = [request.sampling.max_tokens for request in own[3:6]]
    assert firsts == ([12, 30, 10] if lockstep else [1, 25, 10])
    assert all(len(r.sequence) == 50 for r in own if r.id[2] == "judge")
    assert 0 < measured.stats.busy_steps <= engine.stats.busy_steps and measured.iterations > 0


def test_only_in_lockstep_do_trees_wait_for_each_other():
    alone, together = Slow(newest=True), Slow(newest=True)
    drive(alone, 3)
    drive(together, 3, lockstep=True)
    assert {request.id[0] for request in alone.seen[12:]} == {
        2
    }  # the others never come to their turn
    ahead = [request.id[1] for request in together.seen]
    assert ahead == sorted(ahead)


def test_drawn_lengths_have_the_means():
    for what, mean in (("step", 120), ("rollout", 300), ("judge", 100)):
        drawn = [shaped.drawn_length(what, mean, (what, i)) for i in range(2000)]
        assert drawn == [shaped.drawn_length(what, mean, (what, i)) for i in range(2000)]
        assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)
        assert min(drawn) >= 0.1 * mean and max(drawn) <= 1.9 * mean and len(set(drawn)) > 50
