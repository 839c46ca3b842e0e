import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.gpus import GPUS, fraction_advice, gpu_of_kind, memory_fraction

GIB = 2**30


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_is_found_by_its_kind(name):
    assert gpu_of_kind(GPUS[name].kind) is GPUS[name]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 NVL", "h100"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada"),
        ("NVIDIA GH200 480GB", "gh200"),
    ],
)
def test_kinds_that_go_on(kind, name):
    assert gpu_of_kind(kind).name == name


def test_a_name_that_only_starts_alike_is_another_gpu():
    assert gpu_of_kind("NVIDIA L40") is None
    assert gpu_of_kind("NVIDIA L40S").name == "l40s"
    assert gpu_of_kind("TPU v5 lite") is None


@pytest.mark.parametrize("text", ["0", "1.5", "-.5", "much", "nan"])
def test_a_fraction_that_is_none(monkeypatch, text):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", text)
    with pytest.raises(UserError, match=f"MEM_FRACTION={text}: it must be a number above 0"):
        memory_fraction()


def test_the_advice_is_the_least_hundredth_that_holds_it():
    assert fraction_advice(80.1 * GIB, 100 * GIB) == "XLA_PYTHON_CLIENT_MEM_FRACTION=0.81"
    assert fraction_advice(99 * GIB, 100 * GIB) == "XLA_PYTHON_CLIENT_MEM_FRACTION=0.99"
    assert fraction_advice(99.1 * GIB, 100 * GIB) == ""  # 1 GiB is for the context
    assert fraction_advice(23 * GIB, 24 * GIB) == ""
