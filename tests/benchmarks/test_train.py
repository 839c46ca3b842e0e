"""The alternatives of the benchmark of training steps."""

from argparse import Namespace

from benchmarks.train import Way, ways


def test_each_combination_of_alternatives_is_a_way():
    flags = Namespace(
        lora_rank="0",
        remat="full",
        attention="",
        unroll="0,1",
        row_sequences="1",
        compiler=";xla_a=true,xla_b=-3,xla_c=text",
    )
    found = list(ways(flags))
    assert [way.unroll for way in found] == [False, False, True, True]
    assert found[0] == Way(0, "full", "", False, 1, "")
    assert [way.options for way in found[:2]] == [{}, {"xla_a": True, "xla_b": -3, "xla_c": "text"}]
