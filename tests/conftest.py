"""Settings and fixtures of all tests."""

import errno
import gc
import os
import resource
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads of PyTorch that wait for each other spin: its models here are too small for two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compile more than they compute, and without LLVM's passes in about half of the time.
# `optimised` turns these on in one test, JAX_DISABLE_MOST_OPTIMIZATIONS=0 all in all tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from stair_jax.run.compilation_cache import for_this_processor, users_cache

# Programs are kept for the other worker, the processes that tests start, and the next run; those
# that compile in less time than they are read are not. JAX_COMPILATION_CACHE_DIR= keeps none.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(for_this_processor(users_cache() / "tests")))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.03")

import jax
import pytest
from hypothesis import HealthCheck, settings

# Many tests start processes: each would otherwise compile the package's modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_IS_QUICK = jax.config.read("jax_disable_most_optimizations")
if _IS_QUICK and jax.__version_info__[:2] == (0, 10):  # later ones have no such choice
    os.environ["XLA_FLAGS"] = " ".join(
        (
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",  # small programs: splitting costs more
            os.environ.get("XLA_FLAGS", ""),
        )
    )

# Devices for the tests of sharding; the others use the first one.
jax.config.update("jax_num_cpu_devices", 8)

settings.register_profile(
    "stair_jax",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("stair_jax")


def pytest_collection_modifyitems(items):
    """Files with slow tests go first, so that no worker has one left when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keeps modules out of garbage collections, which otherwise take a tenth of the time."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
    return collected


@pytest.fixture
def optimised():
    """Compiles with LLVM's passes: for tests of much arithmetic, or of the program itself."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def full_disk(monkeypatch):
    """Makes every fsync fail, after the bytes were written."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


@pytest.fixture
def small_files():
    """Limits the size of the files that this process writes to 4096 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A small byte-level BPE with the specials and the chat template of Llama 3, and the tags."""
    from stair_jax.testing.tiny_tokenizers import bpe_tokenizer

    return bpe_tokenizer()


@pytest.fixture(scope="session")
def make_stage_inputs(chat_tokenizer):
    """`make(folder, rows, **changes)`: folders of a model stage and of a data stage in `folder`.

    The model has one layer, with `changes` of its config; each file of data has so many rows.
    """
    from stair_jax.models import huggingface
    from stair_jax.storage import write_jsonl
    from stair_jax.testing.tiny_models import tiny_model
    from stair_jax.text.steps import format_answer, format_output, format_step

    steps = [format_step("Problem analysis", "It is a sum."), "\n\n" + format_output("4")]
    wrong = "\n\n" + format_output("5")
    answer = format_answer([("Problem analysis", "It is a sum.")], "4")
    fields = {
        "sft": {"answer": answer},
        "dpo": {"chosen": steps[1], "rejected": wrong, "path": steps[:1]},
        "prm": {"chosen_path": steps, "rejected_path": [steps[0], wrong]},
    }

    def make(folder, rows, **changes):
        plain = {"num_hidden_layers": 1, "initializer_range": 0.02}
        config, params = tiny_model(chat_tokenizer.vocab_size, **plain | changes)
        huggingface.save(folder / "model" / "hf", params, config, chat_tokenizer)
        ids = [{"id": f"{i}", "prompt": f"{i} + 2?", "kind": "safety"} for i in range(rows)]
        for name, own in fields.items():
            write_jsonl(folder / "data" / f"{name}.jsonl", [row | own for row in ids])
        return folder

    return make


@pytest.fixture(scope="session")
def make_context():
    """`make(folder, inputs, seed=0, **runtime)`: the context of a stage that is named as `folder`.

    On one device, unless `runtime` says otherwise.
    """
    from stair_jax.run.context import StageContext
    from stair_jax.run.runtime import Runtime
    from stair_jax.settings import build

    one_device = {"training_mesh": {}, "decoding_mesh": {}}

    def make(folder, inputs, seed=0, **runtime):
        folder.mkdir(parents=True, exist_ok=True)
        settled = build(Runtime, one_device | runtime, "runtime")
        return StageContext(folder.name, settled, seed, folder, inputs)

    return make


@pytest.fixture(scope="session")
def released():
    """What `released_writer.py` defines: it writes trees in the form of the released code."""
    path = Path(__file__).with_name("released_writer.py")
    return SimpleNamespace(**runpy.run_path(str(path)))


@pytest.fixture(scope="session")
def run_stage(make_context):
    """`run(kind, values, folder, inputs, ...)` builds a stage and runs it; gives back `folder`.

    What follows is for the context: see `make_context`.
    """
    from stair_jax.settings import build

    def run(kind, values, folder, inputs, seed=0, **runtime):
        stage = build(kind, values, f"config.{folder.name}")
        stage.run(make_context(folder, inputs, seed, **runtime))
        return folder

    return run


@pytest.fixture(scope="session")
def tpu():
    """`tpu("v5e:2x2")`: a topology; skips the test where TPUs cannot be compiled for."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    from stair_jax.planning.topology import get_topology

    return get_topology


@pytest.fixture(scope="session")
def gpus():
    """`gpus("h100:8")`: a topology; skips the test where GPUs cannot be compiled for."""
    reason = "the compiler for CUDA is not installed"
    pytest.importorskip("jax_plugins.xla_cuda13", reason=reason)
    from stair_jax.planning.topology import get_topology

    return get_topology
