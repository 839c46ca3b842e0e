"""What the last lines of a process have to be that ends with its run."""

import pytest

from soak.endings import _unclear

LINE = "stair_jax: process 0 of 2 is lost: the same command goes on where it stopped"
LOGGED = "F1130 18:34:49.820325   19017 client.h:80] Terminating process because of fatal errors."


@pytest.mark.parametrize(
    ("lines", "is_clear"),
    [
        ([LINE], True),
        (["sft: 2 of 6 steps", LINE], True),
        ([LOGGED, LINE], True),
        ([LINE, LOGGED, "Additional GRPC error information"], True),
        ([LINE, "sft: 3 of 6 steps"], False),
        ([LINE, LINE], False),
        (["stair_jax: error: something else"], False),
        (["Traceback (most recent call last):", LINE], False),
        ([], False),
    ],
)
def test_a_process_ends_with_one_line_that_only_jax_logs_behind(lines, is_clear):
    assert (_unclear(1, "\n".join(lines)) == []) is is_clear
