"""Hours, energy and price of a recipe on devices that are not there."""

import jax
import numpy as np
import pytest

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import take_overrides
from stair_jax.errors import UserError
from stair_jax.planning.energy import EnergySettings, bill
from stair_jax.planning.figures import Basis
from stair_jax.planning.rates import Amounts
from stair_jax.planning.stand_ins import counted_topology
from stair_jax.reports.cost_page import cost_json, estimate_section
from stair_jax.reports.estimates import estimates
from stair_jax.run.recipe import recipe_needs
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

SETTINGS = EnergySettings()


@pytest.fixture(scope="module")
def recipe():
    return read_config(load_config("llama8b_stair"), STAGES, ())


@pytest.fixture(scope="module")
def found(recipe):
    names = ("h100:8", "v5p:2x2x2", "h200:1")
    return estimates(recipe, names, Amounts(), SETTINGS)


def test_the_bill_is_hours_times_power_and_price():
    settings = EnergySettings(utilization=0.5, overhead=2.0, prices={"h100": 3.0})
    spent = bill(10.0, 8, "h100", settings)
    assert (spent.device_hours, spent.kwh, spent.dollars) == (80.0, 56.0, 240.0)  # 700 W
    own = EnergySettings(watts={"h100": 100.0}, utilization=1.0, overhead=1.0)
    assert bill(1.0, 1, "h100", own).kwh == 0.1
    assert own.text("h100").startswith("h100: 100 W (given), ")
    assert SETTINGS.text("v4").startswith("v4: 192 W (measured), ")
    unknown = bill(1.0, 1, "gh200", SETTINGS)
    assert (unknown.kwh, unknown.dollars) == (None, None)


def test_eight_gpus_take_less_time_and_as_many_device_hours_or_more(found):
    eight, _, one = found
    assert eight.count == 8 and one.count == 1
    assert eight.hours < one.hours / 4
    assert eight.bill.device_hours >= one.bill.device_hours
    assert eight.unknown == one.unknown == ()


def test_what_a_figure_rests_on_is_said(found):
    eight, _, one = found
    assert eight.seconds.basis is Basis.ASSUMED  # the amounts of data
    assert all("extrapolated" in rate for rate in eight.rates)
    assert all("measured on such a device" in rate for rate in one.rates)
    assert one.needs["base"].seconds.basis is Basis.MEASURED
    assert eight.needs["base"].seconds.basis is Basis.SCALED


def test_a_tree_and_a_pair_have_their_seconds(found):
    one = found[-1]
    searches = [one.needs[f"search{number}"].seconds.value for number in (1, 2, 3)]
    assert one.tree.value == pytest.approx(sum(searches) / 30_000)
    dpo = sum(one.needs[f"iter{number}"].seconds.value for number in (1, 2, 3))
    assert one.pair.value == pytest.approx(dpo / 69_000)


def test_the_page_has_a_column_for_each_kind_of_devices(found):
    page = estimate_section("llama8b_stair", found, SETTINGS)
    assert "| stage | h100:8 | v5p:2x2x2 | h200:1 |" in page
    assert "(the paper, 8 x A800: 15)" in page
    assert "v5p: 350 W (assumed), $4.2 an hour (a list price of 2025)" in page
    values = cost_json({}, "llama8b_stair", found, SETTINGS)
    assert [one["devices"] for one in values["estimates"]] == ["h100:8", "v5p:2x2x2", "h200:1"]
    assert values["estimates"][0]["basis"] == "assumed"


def test_what_does_not_fit_is_said(recipe):
    (small,) = estimates(recipe, ["rtx4090:1"], Amounts(), SETTINGS)
    assert "sft" in small.obstacles
    page = estimate_section("llama8b_stair", [small], SETTINGS)
    assert "| weights and state fit | no |" in page
    assert "`stair-jax plan --fit`" in page


def test_counted_devices_give_the_hours_of_compiled_for_ones(tpu):
    """A slice as its compiler describes it, and one that is only counted."""
    config = read_config(load_config("llama8b_sft"), STAGES, ())
    described, counted = tpu("v5p:2x2x1"), counted_topology("v5p:2x2x1")
    assert len(described.devices) == len(counted.devices)
    hours = [
        {name: each.seconds for name, each in recipe_needs(config, one, Amounts()).items()}
        for one in (described, counted)
    ]
    assert hours[0] == hours[1]


def test_moments_on_the_host_are_estimated_too():
    """And int8 beside them named as what TPUs cannot do."""
    flag = "--config.sft.offload=True"
    eight = ("--config.sft.mu_dtype=int8", "--config.sft.second_moment=int8")
    overrides, _ = take_overrides([flag, *eight])
    config = read_config(load_config("llama8b_sft"), STAGES, overrides)
    gpu, tpu = estimates(config, ["h200:1", "v5p:2x2x1"], Amounts(), SETTINGS)
    assert gpu.obstacles == {}
    assert "does not go with moments in int8 on TPUs" in tpu.obstacles["sft"]


@pytest.mark.parametrize("name", ["local", "abacus:8"])
def test_devices_of_no_name_are_refused_and_local_ones_not_offered(name):
    with pytest.raises(UserError, match=rf"--devices={name}.*h100:8") as raised:
        counted_topology(name)
    assert "local" not in str(raised.value).removeprefix(f"--devices={name}")


def test_counted_devices_make_a_mesh():
    devices = np.array(counted_topology("h100:16").devices)
    assert {device.process_index for device in devices} == {0, 1}
    mesh = jax.sharding.Mesh(devices.reshape(4, 4), ("data", "fsdp"))
    assert mesh.shape == {"data": 4, "fsdp": 4}
