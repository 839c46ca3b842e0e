"""The command.

    stair-jax [run] --config=configs/pocket.py --workdir=runs/pocket [--config.FIELD=VALUE ...]
    stair-jax sweep --config=configs/pocket.py --workdir=runs/beta --vary=dpo.beta=0.05,0.1
    stair-jax table runs/beta
    stair-jax plan --config=configs/pocket.py --topology=v5p:2x2x1
    stair-jax show runs/pocket
    stair-jax answer --model=runs/pocket/iter3 "how do i make soup ?"
    stair-jax chat --model=runs/pocket/iter3
    stair-jax --help[=SECTION]

`python -m stair_jax.launch` is the same. Exit status: 0 done; 2 a mistake that the user can correct
(one line says what); 3 a plan that does not fit; 4 another process of the run was lost, start all
again; 1 a fault of ours (with a traceback); 130 or 143 stopped from outside (Ctrl-C or SIGTERM).
"""

import os
import select
import signal
import sys
from collections.abc import Sequence

from stair_jax.commands import VERBS
from stair_jax.commands.flags import make_parser, read_arguments
from stair_jax.commands.help import format_help, verb_module
from stair_jax.commands.session import Session
from stair_jax.errors import UserError, did_you_mean, system_error
from stair_jax.parallel.processes import collectives
from stair_jax.parallel.processes.watchdog import LOST
from stair_jax.run.out_of_memory import out_of_memory
from stair_jax.stopping import StopSignals

_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # TensorFlow's and XLA's notes to their developers
    "TOKENIZERS_PARALLELISM": "false",  # else a warning at each fork
}
_HELP = ("-h", "-help", "--help", "--helpfull")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, the name of the program first; returns the exit status."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    words = list(sys.argv if argv is None else argv)[1:]
    with StopSignals() as signals:
        return _run(words, Session(signals))


def _run(words: list[str], session: Session) -> int:
    """Does what the command line says, and says how that ended; returns the exit status."""
    try:
        status = _execute(words, session)
        sys.stdout.flush()  # here, where a closed pipe can still be told from other faults
        return status
    except UserError as error:
        return session.end(2, f"error: {' '.join(str(error).split())}")
    except collectives.LostProcess as error:
        return session.end(LOST, f"{error}; the same command goes on where it stopped")
    except KeyboardInterrupt:
        return session.end_by_signal()
    except Exception as error:
        if session.signals.number is not None:  # what a library made of the signal's exception
            return session.end_by_signal()
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 128 + signal.SIGPIPE
        if reason := out_of_memory(error) or system_error(error):
            return session.end(2, f"error: {reason}")
        session.fail(error)
        raise


def _reader_has_gone() -> bool:
    """Whether nobody reads our output any more, as behind `| head`; the rest of it is dropped."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # Python flushes once more at its end, and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _execute(words: list[str], session: Session) -> int:
    """Does what the command line says; returns the exit status."""
    verb, words = _take_verb(words)
    for word in words:
        flag, _, topic = word.partition("=")
        if flag in _HELP:
            print(format_help(topic or verb))
            return 0
    module = verb_module(verb or "run")
    parser = make_parser(verb or "run", module.SUMMARY, module.add_flags)
    return module.execute(read_arguments(parser, words), session)


def _take_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb, empty where none is named, and the rest; `--plan` makes a plan of any command."""
    if words and not words[0].startswith("-"):
        if words[0] not in VERBS:
            hint = did_you_mean(words[0], VERBS)
            raise UserError(f"there is no command {words[0]!r}: {hint} (--help lists them)")
        return words[0], words[1:]
    if any(word.partition("=")[0] in ("--plan", "-plan") for word in words):
        return "plan", words
    return "", words


if __name__ == "__main__":
    sys.exit(main())
