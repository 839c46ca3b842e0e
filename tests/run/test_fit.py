"""The smallest changes with which a config fits: their order, and what a run makes of them."""

import json

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from stair_jax.errors import UserError
from stair_jax.parallel.chips import GIB, Chip
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.plan_table import Planned
from stair_jax.planning.program import Compiled, Footprint
from stair_jax.run import fit_run
from stair_jax.run.changes import Change, changes, format_changes
from stair_jax.run.fit import Known, Trial, fit, smallest
from stair_jax.run.override import Override
from stair_jax.run.run_config import read_config
from stair_jax.run.savings import Harm, Saving, apply, halvings, training_savings
from stair_jax.stages import STAGES

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
KINDS = (Harm.COST, Harm.ROUNDING, Harm.ADAPTERS)


@st.composite
def ladders(draw):
    """Savings in the order of harm, each with the bytes that it saves."""
    rungs = []
    for harm in KINDS:
        for knob in draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True)):
            for degree in range(1, draw(st.integers(1, 3)) + 1):
                rungs.append(
                    (Saving(harm, {f"{harm.name}.{knob}": degree}), draw(st.integers(0, 9)))
                )
    return rungs


def saved(savings, gains):
    """What some savings save together: of each knob the last, with all below it."""
    total = 0
    for saving in savings:
        ((name, degree),) = saving.values.items()
        total += sum(gain for other, gain in gains if name in other.values
                     and other.values[name] <= degree)  # fmt: skip
    return total


@given(ladders(), st.integers(1, 60))
def test_what_is_taken_fits_and_none_of_it_can_be_spared(rungs, needed):
    """And a degree of harm is taken only where all less harmful ones together do not do."""
    ladder = [saving for saving, _ in rungs]

    def fits(savings):
        last = {saving.knob: saving for saving in savings}
        return saved(last.values(), rungs) >= needed

    found = smallest(ladder, fits)
    if found is None:
        assert not fits(ladder)
        return
    assert fits(found)
    assert len({saving.knob for saving in found}) == len(found)
    for saving in found:
        assert not fits([other for other in found if other is not saving])
    worst = max(saving.harm for saving in found)
    assert not fits([saving for saving in ladder if saving.harm < worst])
    assert [s.harm for s in found] == sorted(s.harm for s in found)


def test_few_trials():
    """A ladder as long as that of a stage, of which the last but one is needed."""
    harms = [Harm.COST] * 8 + [Harm.ROUNDING] * 2 + [Harm.ADAPTERS, Harm.BASE]
    ladder = [Saving(harm, {str(i): 0}) for i, harm in enumerate(harms)]
    asked = []

    def fits(savings):
        asked.append(savings)
        return ladder[10] in savings

    assert smallest(ladder, fits) == [ladder[10]]
    assert len(asked) < 16


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [(8, 1, [4, 2, 1]), (12, 2, [6, 2]), (7, 2, [6, 2]), (2, 2, []), (5, 4, [4])],
)
def test_halvings_are_multiples_that_go_down(size, least, expected):
    assert list(halvings(size, least)) == expected


ROWS = 2**28  # bytes of the activations of a row, in the fake below


def config_of(**sections):
    """SFT, search and two DPO stages of a model of 0.5 B parameters, known by name alone."""
    training = {"microbatch_rows": 8, "remat": "full", "dtype": "bfloat16"}
    values = {
        "stages": (
            "files", "model:base", "sft", "search", "preferences:pairs", "dpo:first", "dpo:second",
        ),
        "runtime": {"vocab_multiple": 128},
        "files": {"sft": "nowhere.jsonl", "prompts": ("nothing.jsonl",)},
        "model": {"init": "runs/nowhere", "architecture": QWEN},
        "sft": {"model": "base", "data": "files", **training},
        "search": {
            "model": "sft", "prompts": "files", "dtype": "bfloat16", "context_tokens": 256,
        },
        "preferences": {"trees": "search"},
        "dpo": {"model": "sft", "preferences": "pairs", **training},
        "second": {"model": "first"},
    }  # fmt: skip
    return ConfigDict({**values, **sections})


def settled(*flags, **sections):
    overrides = [
        Override(*flag.removeprefix("--config.").partition("=")[::2], flag) for flag in flags
    ]
    return read_config(config_of(**sections), STAGES, overrides)


def bytes_of(program):
    """Arguments; of a training step gradients too, and so much for each row on a device."""
    arrays = [leaf for leaf in jax.tree.leaves(program.arguments) if hasattr(leaf, "shape")]
    if "step" not in program.name:
        return local_bytes((arrays, program.beside))
    rows = int(program.name.split(" x ")[1]) // program.num_chips
    trained = sum(leaf.size for leaf in jax.tree.leaves(program.arguments[0].params))
    return local_bytes(arrays) + 4 * trained // program.num_chips + rows * ROWS


class Fake:
    """Measures programs without compiling them."""

    def __init__(self, gib):
        self.chip, self.calls = Chip("fake", gib * GIB), []

    def __call__(self, program, stages, title=""):
        self.calls.append(program)
        footprint = Footprint(bytes_of(program), 0, 0, 0, 0)
        return Planned(program, stages, self.chip, Compiled(footprint, "", 0.0))


def fitted(config, gib, devices=1, known=None):
    return fit(config, Trial(Fake(gib), jax.devices()[:devices]), known)


def flags(config, result):
    return [change.override for change in changes(config, result)]


def test_nothing_is_changed_where_all_fits():
    config = settled()
    result = fitted(config, 100)
    assert result.config == config and not result.obstacles
    assert format_changes(changes(config, result), result) == "fit: nothing had to be changed"


def test_smaller_micro_batches_come_first_and_as_large_as_they_may_be():
    config = settled()  # 7.4 GiB of parameters, moments and gradients, 2 of eight rows
    result = fitted(config, 8.6)
    assert flags(config, result) == [
        "--config.sft.microbatch_rows=4",
        "--config.dpo.microbatch_rows=4",
    ]
    assert all(change.harm == Harm.COST for change in changes(config, result))


def test_what_alters_results_is_last_and_said_to():
    config = settled()
    result = fitted(config, 7.0)
    found = changes(config, result)
    assert "--config.dpo.mu_dtype=bfloat16" in flags(config, result)[-2:]
    assert "--config.sft.lora.rank=64" not in flags(config, result)
    text = format_changes(found, result)
    assert text.index("what changes cost alone") < text.index("alters results")
    lowest = fitted(config, 2.5)
    assert not lowest.obstacles
    assert "--config.sft.lora.rank=64" in flags(config, lowest)


@pytest.mark.parametrize("gib", [8.6, 5.0, 3.2, 2.5])
def test_the_flags_give_the_config_that_fits_and_it_stays_as_it_is(gib):
    config = settled()
    result = fitted(config, gib)
    pasted = settled(*flags(config, result))
    assert pasted.effective() == result.config.effective()
    again = fitted(pasted, gib)
    assert again.config == pasted and not again.obstacles


def test_a_change_of_some_stages_of_a_kind_stands_under_their_names():
    config = settled(second={"model": "first", "microbatch_rows": 2})
    assert flags(config, fitted(config, 8.6)) == [
        "--config.sft.microbatch_rows=4",
        "--config.first.microbatch_rows=4",
    ]


def test_what_is_in_the_way_of_what_fits_by_no_change():
    config = settled()
    result = fitted(config, 0.2)
    assert set(result.obstacles) == {"sft", "search", "first", "second"}
    assert result.config == config
    assert "of 0.20 GiB" in result.obstacles["sft"]
    assert "no change makes the stage sft fit: SFT step" in format_changes([], result)


def test_a_mesh_that_the_devices_do_not_make_is_left_to_them():
    runtime = {"vocab_multiple": 128, "training_mesh": {"fsdp": 64}}
    config = settled(runtime=runtime)
    result = fitted(config, 100, devices=2)
    assert "--config.runtime.training_mesh=None" in flags(config, result)
    assert settled(*flags(config, result), runtime=runtime).effective() == (
        result.config.effective()
    )
    assert not fitted(result.config, 100, devices=2).obstacles


def test_rows_that_the_mesh_does_not_divide_are_made_ones_that_it_does():
    runtime = {"vocab_multiple": 128, "training_mesh": {"fsdp": 2}}
    config = settled(runtime=runtime, sft={"model": "base", "data": "files", "microbatch_rows": 5})
    assert flags(config, fitted(config, 100, devices=2)) == ["--config.sft.microbatch_rows=4"]


def test_too_many_slots_become_fewer():
    config = settled("--config.runtime.cache_tokens=67108864")
    found = flags(config, fitted(config, 100))
    assert found == ["--config.runtime.cache_tokens=0"]


def test_a_stage_that_was_started_gets_changes_of_cost_alone():
    config = settled()
    known = {"sft": Known(Harm.COST), "search": Known(None)}
    result = fitted(config, 7.0, known=known)
    assert set(result.obstacles) == {"sft"}
    assert "--config.dpo.mu_dtype=bfloat16" in flags(config, result)


def record_of(entry, file, folder):
    """Writes the record of a stage as a run with its settings does."""
    identity = entry.identity(dict.fromkeys(entry.input_names, ""))
    whole = {**identity, "fingerprint": "f", "files": {}}
    path = folder / entry.name / file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(whole))


@pytest.fixture
def here(monkeypatch):
    """A function that gives this machine one device of so much memory, by a fake measure."""
    monkeypatch.setattr(fit_run, "Trial", lambda measure: Trial(measure, jax.devices()[:1]))
    return lambda gib: monkeypatch.setattr(fit_run, "Measuring", lambda topology: Fake(gib))


def test_what_was_started_goes_on_as_an_earlier_fit_had_it(tmp_path, capsys):
    config = settled()
    before = fitted(config, 2.5).config
    sft = next(entry for entry in before.stages if entry.name == "sft")
    record_of(sft, "started.json", tmp_path)
    adopted, known = fit_run.as_started(config, tmp_path)
    now = next(entry for entry in adopted.stages if entry.name == "sft")
    assert now.identity({"base": "", "files": ""}) == sft.identity({"base": "", "files": ""})
    assert known["sft"].most == Harm.COST and set(known) == {"sft"}
    assert "config.sft.lora.rank stays 64" in capsys.readouterr().err
    # On larger devices it still has the settings that decide its results, and rows of its own.
    again = fit(adopted, Trial(Fake(100), jax.devices()[:1]), known)
    assert again.config == adopted


def test_another_change_of_the_config_is_left_for_the_run_to_refuse(tmp_path):
    sft = settled("--config.sft.learning_rate=0.5").stages[2]
    record_of(sft, "started.json", tmp_path)
    adopted, _ = fit_run.as_started(settled(), tmp_path)
    assert adopted == settled()


def test_a_stage_that_is_made_anew_is_fitted_anew(tmp_path):
    config = settled()
    sft = fitted(config, 2.5).config.stages[2]
    record_of(sft, "started.json", tmp_path)
    assert fit_run.as_started(config, tmp_path, ["sft"]) == (config, {})


def test_a_run_is_checked_and_fitted_and_says_each_change(tmp_path, here, capsys, monkeypatch):
    monkeypatch.setattr(fit_run, "check_environment", lambda *_: None)
    here(2.5)
    config, models = fit_run.check_and_fit(settled(), tmp_path / "run")
    assert config.stages[2].stage.lora.rank == 64
    assert models["sft"].num_hidden_layers == 24
    err = capsys.readouterr().err
    assert "fit: --config.sft.lora.rank=64 (was 0): alters results: adapters are trained" in err
    assert not (tmp_path / "run").exists()
    again, _ = fit_run.check_and_fit(config, tmp_path / "run")
    assert again == config
    assert "fit: nothing had to be changed" in capsys.readouterr().err


def test_a_run_that_fits_by_no_change_is_refused(tmp_path, here, monkeypatch):
    monkeypatch.setattr(fit_run, "check_environment", lambda *_: None)
    here(0.2)
    with pytest.raises(UserError, match="stage sft: no change makes it fit these devices: SFT st"):
        fit_run.check_and_fit(settled(), tmp_path)


def test_a_tuple_is_written_so_that_a_shell_takes_it():
    change = Change("sft", "lora.targets", (), ("query", "key"), Harm.ADAPTERS)
    assert change.override == "--config.sft.lora.targets=query,key"
    pasted = settled("--config.sft.lora.rank=4", change.override).stages[2].stage
    assert pasted.lora.targets == ("query", "key")


def test_smaller_moments_come_before_adapters():
    """Of 7 bytes a parameter: two, a gradient of four, a first moment of one, no second."""
    config = settled()
    found = [flag for flag in flags(config, fitted(config, 3.7)) if ".sft." in flag]
    assert "--config.sft.mu_dtype=int8" in found and "--config.sft.second_moment=factored" in found
    assert not any("lora" in flag or "offload" in flag for flag in found)


@pytest.mark.parametrize(
    ("platform", "first", "offload"),
    [
        ("cpu", "float32", None),  # its memory is that of the host
        ("gpu", "int8", {"offload": True}),
        ("tpu", "float32", {"offload": True, "mu_dtype": "float32", "second_moment": "float32"}),
        ("tpu", "int8", {"offload": True, "mu_dtype": "bfloat16", "second_moment": "float32"}),
    ],
)
def test_moments_go_to_the_host_last_and_not_in_int8_on_tpus(platform, first, offload):
    config = settled(f"--config.sft.mu_dtype={first}")
    sft = config.stages[2]
    savings = training_savings(sft.stage, config.runtime, platform, 1, None)
    rounding = [saving.values for saving in savings if saving.harm == Harm.ROUNDING]
    assert [values for values in rounding if "offload" in values] == ([offload] if offload else [])
    if offload:
        assert rounding[-1] == offload
        changed, _ = apply(
            sft, config.runtime, {k: v for each in rounding for k, v in each.items()}
        )
        assert changed.stage.offload and changed.stage.mu_dtype == offload.get("mu_dtype", first)
