"""Ctrl-C and SIGTERM end a command also where a callback swallows the exception of the handler."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest

from stair_jax import stopping
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.record_log import RecordLog
from stair_jax.stopping import Stopped, StopSignals, heed

ROOT = Path(__file__).parents[1]
NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def heeded_interrupts():
    """SIGINT as Python handles it: a shell's background jobs, say, are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signals(monkeypatch):
    """Active signals whose timer does not look by itself."""
    monkeypatch.setattr(stopping, "_SECONDS", 1000.0)
    with StopSignals() as signals:
        yield signals


def swallow(number):
    """Sends a signal to this process while a callback runs whose exceptions nobody sees."""

    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda reference: os.kill(os.getpid(), number))
    del thing
    assert reference() is None


def test_work_that_ends_at_a_good_place_is_asked_first(signals):
    with signals.asking_first() as is_asked:
        assert not is_asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_asked() and signals.number is None
        heed()
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
    signals.go_on()
    heed()
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_sigterm_is_not_asked_first(signals):
    with signals.asking_first(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_raises_where_the_program_is(signals, number):
    with pytest.raises(Stopped) as caught:
        os.kill(os.getpid(), number)
        pytest.fail("went on")
    assert caught.value.number == signals.number == number
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_exception_that_a_callback_swallows_is_raised_again(signals, number, capsys):
    swallow(number)
    for _ in range(3):  # however often it is swallowed
        with pytest.raises(Stopped):
            heed()
    assert capsys.readouterr().err == ""  # Python's words on an exception that it ignores


def test_a_swallowed_exception_is_found_by_the_timer(monkeypatch):
    """In code that looks at no flag; the callback is one of the garbage collector, as JAX's."""
    monkeypatch.setattr(stopping, "_SECONDS", 0.01)
    sent = []

    def callback(phase, info):
        if not sent:
            sent.append(phase)
            os.kill(os.getpid(), signal.SIGINT)

    gc.callbacks.append(callback)
    try:
        with StopSignals(), pytest.raises(Stopped):
            gc.collect()
            assert sent
            for _ in range(10**10):  # minutes
                pass
    finally:
        gc.callbacks.remove(callback)


def test_cleaning_up_is_not_cut_short(signals):
    done = []
    with pytest.raises(Stopped):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            heed()
            try:
                raise KeyError
            except KeyError:
                heed()
                signals.raise_again()
            done.append("cleaned up")
    assert done == ["cleaned up"]


def test_a_second_signal_cuts_cleaning_up_short(signals):
    with pytest.raises(Stopped) as caught:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.number == signal.SIGINT


def test_nothing_is_raised_once_the_end_is_settled(signals):
    swallow(signal.SIGINT)
    signals.settle()
    heed()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.number == signal.SIGINT


def test_the_handlers_of_before_are_back(capsys):
    numbers = (*NUMBERS, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with StopSignals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGINT)
    assert ([signal.getsignal(number) for number in numbers], sys.unraisablehook) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    heed()


def test_an_interrupt_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            heed()
            assert signals.number is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_of_others_in_callbacks_are_still_shown(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_type))

    class Thing:
        def __del__(self):
            raise ZeroDivisionError

    with StopSignals():
        Thing()
    assert seen == [ZeroDivisionError]


class Endless:
    """An engine whose requests are never done; at its third round a signal is swallowed."""

    pending = 1
    rounds = 0

    def submit(self, requests):
        self.pending = 1

    def cancel(self, ids):
        self.pending = 0

    def step(self):
        self.rounds += 1
        assert self.rounds < 100, "nobody heeds the signal"
        if self.rounds == 3:
            swallow(signal.SIGINT)
        return []


def test_a_loop_over_an_engine_heeds_a_swallowed_signal(signals):
    engine = Endless()
    engine.pending = 0
    with pytest.raises(Stopped):
        run_all(engine, [Request("r", (1,), sampling=Sampling())])
    assert engine.rounds == 3


def test_reading_records_heeds_a_swallowed_signal(signals, tmp_path):
    log = RecordLog(tmp_path / "log.gz")
    for number in range(3):
        log.append({"number": number})
    read = []
    with pytest.raises(Stopped):
        for record in log:
            read.append(record["number"])
            if len(read) == 2:
                swallow(signal.SIGTERM)
    assert read == [0, 1]


SCRIPT = """
    import dataclasses, gc, os, signal, sys, time
    from stair_jax import launch
    from stair_jax.commands import run
    from stair_jax.run.stage import Stage

    # A shell lets its background jobs, and so their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    NUMBER, REST = int(sys.argv.pop(1)), sys.argv.pop(1)

    def swallowing(phase, info):
        gc.callbacks.remove(swallowing)
        os.kill(os.getpid(), NUMBER)

    @dataclasses.dataclass(frozen=True)
    class Work(Stage):
        def run(self, context):
            gc.callbacks.append(swallowing)
            gc.collect()
            assert swallowing not in gc.callbacks
            (context.folder / "went_on").write_text("")
            if REST == "loop":
                time.sleep(60)
            else:  # what a library makes of an exception in a callback of its own
                raise RuntimeError("INTERNAL: a callback failed")

    run.STAGES = {"work": Work}
    sys.exit(launch.main())
"""


@pytest.mark.parametrize("rest", ["loop", "error"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_command_ends_as_asked_though_its_signal_was_swallowed(tmp_path, number, rest):
    script, config = tmp_path / "script.py", tmp_path / "config.py"
    script.write_text(textwrap.dedent(SCRIPT))
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(): return ConfigDict({'stages': ('work',)})\n"
    )
    command = [sys.executable, script, str(int(number)), rest]
    ended = subprocess.run(
        [*command, f"--config={config}", f"--workdir={tmp_path / 'w'}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (tmp_path / "w" / "work" / "went_on").exists(), ended.stderr
    assert ended.returncode == 128 + number, ended.stderr
    last = f"stair_jax: {word}: the same command goes on where it stopped\n"
    assert ended.stderr.endswith(last) and "Traceback" not in ended.stderr
    assert "ignored" not in ended.stderr
