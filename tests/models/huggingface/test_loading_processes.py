"""Import and export in a run of two processes, each with half of the devices."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from stair_jax.models import huggingface

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
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


@pytest.mark.distributed
def test_each_process_reads_its_half_and_one_writes(make_checkpoint, tokenizer, tmp_path):
    config = huggingface.load_config(make_checkpoint("qwen2")[0])
    params = huggingface.load_params(make_checkpoint("qwen2")[0], config)
    head = {"kernel": jax.random.normal(jax.random.key(0), (config.hidden_size,))}
    source, target = tmp_path / "source", tmp_path / "target"
    huggingface.save(source, params, config, tokenizer, head)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index), str(source), str(target)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    expected = (source / "model.safetensors").read_bytes()
    assert (target / "model.safetensors").read_bytes() == expected
    # fsdp does not split the biases: both processes hold them.
    shared = sum(params["layers"][name].nbytes for name in ("query_bias", "key_bias", "value_bias"))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) - params["head"].nbytes
    half = shared + (total - shared) // 2
    assert [stdout.splitlines()[-1] for stdout, _ in results] == [f"read {half} bytes"] * 2
