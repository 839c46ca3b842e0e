import os
from types import SimpleNamespace

import jax
import pytest

from stair_jax.parallel.chips import GIB, TPUS, local_chip


def gpu(kind, limit):
    return SimpleNamespace(
        platform="gpu", device_kind=kind, memory_stats=lambda: {"bytes_limit": limit}
    )


def test_the_devices_of_a_cpu_share_the_memory_of_the_machine():
    chip = local_chip(jax.devices()[0])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert chip.memory * jax.local_device_count() == pytest.approx(total)
    assert chip.flops is None and chip.bandwidth is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
    ],
)
def test_a_gpu_has_the_memory_that_jax_may_use(kind, name):
    chip = local_chip(gpu(kind, 50 * GIB))
    assert (chip.name, chip.memory) == (name, 50 * GIB)
    assert chip.flops > 300e12 and chip.bandwidth > 1500e9


def test_an_unknown_chip_has_no_bounds():
    chip = local_chip(gpu("Wafer 9", 7))
    assert (chip.name, chip.memory, chip.flops, chip.bandwidth) == ("Wafer 9", 7, None, None)


def test_tpus_beside_their_data_sheets():
    """The memory for a program is slightly less than the data sheet says."""
    sheets = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}  # GB, of 10^9 bytes or more
    for name, size in sheets.items():
        assert 0.95 * size * 1e9 < TPUS[name].memory < 1.09 * size * 1e9
