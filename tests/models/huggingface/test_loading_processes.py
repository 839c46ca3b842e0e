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
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
address, process, source, adapted, target = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(process))
from stair_jax.models.huggingface import safetensors_files, loading
from stair_jax.models import huggingface
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.text.tokenizer import Tokenizer

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
huggingface.save(target + "/model", params, config, Tokenizer.load(source), head)
print("read", sum(sizes) - 24 * 4, "bytes")  # the scalar head is read whole

mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
config = fit_to_mesh(huggingface.load_config(adapted), mesh, vocab_multiple=12)
tokenizer, base = Tokenizer.load(adapted), huggingface.adapter_base(adapted)
params = huggingface.load_params(adapted, config, mesh)
head = huggingface.load_score_head(adapted, mesh)
huggingface.save_adapter(target + "/adapters", params, config, tokenizer, base, head)
huggingface.save(target + "/beside", params, config, tokenizer, head)
merged = replace(config, lora=None)
params = huggingface.load_params(adapted, merged, mesh)
huggingface.save(target + "/merged", params, merged, tokenizer, head)
"""
LORA = Lora(2, 0.7, token_ids=(3, 20))


@pytest.fixture(scope="module")
def base(make_checkpoint):
    """(folder, config, parameters) of a model in one process."""
    folder, _ = make_checkpoint("qwen2")
    config = huggingface.load_config(folder)
    return folder, config, huggingface.load_params(folder, config)


@pytest.fixture(scope="module")
def folders(base, tokenizer, tmp_path_factory):
    """A folder: `source` and `adapted` by one process, `target` and what they said by two."""
    folder = tmp_path_factory.mktemp("processes")
    base_folder, config, params = base
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    huggingface.save(folder / "source", params, config, tokenizer, head)
    config = replace(config, lora=LORA)
    params = jax.tree.map(lambda value: value + 0.1, init_params(config, jax.random.key(0)))
    huggingface.save_adapter(folder / "adapted", params, config, tokenizer, base_folder, head)
    merged = replace(config, lora=None)
    params = huggingface.load_params(folder / "adapted", merged)
    huggingface.save(folder / "merged", params, merged, tokenizer, head)
    said = run_two(*(folder / name for name in ("source", "adapted", "target")))
    (folder / "said").write_text("\n".join(said))
    return folder


def run_two(*folders):
    """What two processes write to stdout, which run the program together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index), *map(str, folders)],
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
def test_each_process_reads_its_half_and_one_writes(base, folders):
    _, _, params = base
    expected = (folders / "source/model.safetensors").read_bytes()
    assert (folders / "target/model/model.safetensors").read_bytes() == expected
    # fsdp does not split the biases: both processes hold them.
    shared = sum(params["layers"][name].nbytes for name in ("query_bias", "key_bias", "value_bias"))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) - params["head"].nbytes
    half = shared + (total - shared) // 2
    said = (folders / "said").read_text().splitlines()
    assert [line for line in said if line.startswith("read")] == [f"read {half} bytes"] * 2


@pytest.mark.distributed
def test_adapters_are_read_and_written_by_two_processes(folders):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        written = (folders / "target/adapters" / name).read_bytes()
        assert written == (folders / "adapted" / name).read_bytes()
    expected, *found = (
        load_file(folders / name / "model.safetensors")
        for name in ("merged", "target/beside", "target/merged")
    )
    for name, values in expected.items():
        for each in found:
            np.testing.assert_allclose(each[name], values, atol=1e-6)
