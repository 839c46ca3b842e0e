"""Import and export in a run of two processes, each with half of the devices."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from stair_jax.models import huggingface
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import init_params

ROOT = Path(__file__).parents[3]
START = """
import sys
from dataclasses import replace
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
address, process, source, target = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(process))
from stair_jax.models.huggingface import safetensors_files, loading
from stair_jax.models import huggingface
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.text.tokenizer import Tokenizer
"""
PROGRAM = """
sizes = []
read = safetensors_files.CheckpointFiles.read
def counted(*arguments):
    values = read(*arguments)
    sizes.append(values.nbytes)
    return values
safetensors_files.CheckpointFiles.read = counted
loading._PIECE_BYTES = 1  # a layer at a time

mesh = make_mesh(MeshShape(fsdp=8))
assert len(jax.local_devices()) == 4 and mesh.size == 8
config = fit_to_mesh(huggingface.load_config(source), mesh, vocab_multiple=12)
params = huggingface.load_params(source, config, mesh)
head = huggingface.load_score_head(source, mesh)
huggingface.save(target, params, config, Tokenizer.load(source), head)
print("read", sum(sizes) - 24 * 4, "bytes")  # the scalar head is read whole
"""


ADAPTERS = """
loading._PIECE_BYTES = 1
mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
config = fit_to_mesh(huggingface.load_config(source), mesh, vocab_multiple=12)
tokenizer, base = Tokenizer.load(source), huggingface.adapter_base(source)
params = huggingface.load_params(source, config, mesh)
head = huggingface.load_score_head(source, mesh)
huggingface.save_adapter(target + "/adapters", params, config, tokenizer, base, head)
huggingface.save(target + "/beside", params, config, tokenizer, head)
merged = replace(config, lora=None)
params = huggingface.load_params(source, merged, mesh)
huggingface.save(target + "/merged", params, merged, tokenizer, head)
"""


def run_two(program, source, target):
    """What two processes write to stdout, which run the program together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START + program, address, str(index), str(source), str(target)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    return [stdout for stdout, _ in results]


@pytest.mark.distributed
def test_each_process_reads_its_half_and_one_writes(make_checkpoint, tokenizer, tmp_path):
    config = huggingface.load_config(make_checkpoint("qwen2")[0])
    params = huggingface.load_params(make_checkpoint("qwen2")[0], config)
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    source, target = tmp_path / "source", tmp_path / "target"
    huggingface.save(source, params, config, tokenizer, head)
    said = run_two(PROGRAM, source, target)
    expected = (source / "model.safetensors").read_bytes()
    assert (target / "model.safetensors").read_bytes() == expected
    # fsdp does not split the biases: both processes hold them.
    shared = sum(params["layers"][name].nbytes for name in ("query_bias", "key_bias", "value_bias"))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) - params["head"].nbytes
    half = shared + (total - shared) // 2
    assert [stdout.splitlines()[-1] for stdout in said] == [f"read {half} bytes"] * 2


@pytest.mark.distributed
def test_adapters_are_read_and_written_by_two_processes(make_checkpoint, tokenizer, tmp_path):
    base, _ = make_checkpoint("qwen2")
    config = replace(huggingface.load_config(base), lora=Lora(2, 0.7, token_ids=(3, 20)))
    params = init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda value: value + 0.1, params)
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    source, target = tmp_path / "source", tmp_path / "target"
    huggingface.save_adapter(source, params, config, tokenizer, base, head)
    run_two(ADAPTERS, source, target)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (target / "adapters" / name).read_bytes() == (source / name).read_bytes()
    merged = huggingface.load_params(source, replace(config, lora=None))
    huggingface.save(tmp_path / "expected", merged, replace(config, lora=None), tokenizer, head)
    expected, *found = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "expected", target / "beside", target / "merged")
    )
    for name, values in expected.items():
        for each in found:
            np.testing.assert_allclose(each[name], values, atol=1e-6)
