"""The flag --cluster of the verbs that run stages sets the workers of the run."""

import pytest

from stair_jax import launch

VERBS = {
    "run": ("--config=pocket",),
    "evaluate": ("--model=pocket", "--benchmarks=gsm8k"),
    "synthesize": ("--prompts=p.jsonl", "--teacher=pocket"),
    "sweep": ("--config=pocket", "--vary=seed=0,1", "--list"),
}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "sweep"])
def test_the_config_has_the_workers(verb, capsys):
    flags = (*VERBS[verb], "--cluster=local:2", "--show-config")
    assert launch.main(["stair-jax", verb, *flags]) == 0
    assert "config.runtime.cluster = 'local:2'" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("verb", VERBS)
def test_workers_that_cannot_be_are_refused_by_the_flag(verb, capsys):
    assert launch.main(["stair-jax", verb, *VERBS[verb], "--cluster=two"]) == 2
    assert "it must be local:N, for N workers" in capsys.readouterr().err
