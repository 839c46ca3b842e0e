"""Peak host memory of importing a checkpoint of several gigabytes, above the parameters.

    python -m benchmarks.import_memory [--layers 5] [--folder /tmp] [--parts 1x1,8x1,4x2]

Makes a random bfloat16 checkpoint of the shapes of Llama-3.1-8B in a temporary folder, tensor by
tensor, and imports it in processes of their own on simulated CPU devices (fsdp x tensor), whose
parameters are in the host's memory too. For each import there is a JSON line, all sizes in GB:

    checkpoint, largest_tensor (in the dtype of the parameters), local_shards (of all devices here)
    peak_anonymous  memory of the process above that before the import, files it maps not counted
    peak_resident   the same with mapped files (VmHWM)
    above_shards    how much the larger of the two is above the local shards
    ratio           of that to the largest tensor; the bar is 1.3

The machine needs about 2.3 times the checkpoint's size for float32, and as much disk as it has.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BAR = 1.3
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_CHUNK_VALUES = 2**22


def main() -> None:
    """Makes the checkpoint, and imports it in one process for each mesh and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the checkpoint")
    parser.add_argument("--parts", default="1x1,8x1,4x2", help="fsdp x tensor of each import")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--load", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        fsdp, tensor = map(int, arguments.parts.split("x"))
        measure(Path(arguments.load), fsdp, tensor, arguments.dtypes)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_checkpoint(Path(folder), arguments.layers)
        for parts in arguments.parts.split(","):
            for dtype in arguments.dtypes.split(","):
                command = [sys.executable, "-m", "benchmarks.import_memory", "--load", folder]
                command += ["--parts", parts, "--dtypes", dtype]
                environment = os.environ | {"JAX_PLATFORMS": "cpu"}
                subprocess.run(command, check=True, env=environment)


def make_checkpoint(folder: Path, layers: int) -> None:
    """Writes config.json and one file of random bfloat16 tensors, a chunk at a time."""
    from stair_jax.models.config import ModelConfig
    from stair_jax.models.huggingface.known_configs import KNOWN
    from stair_jax.models.huggingface.safetensors_files import SINGLE_FILE, write_file
    from stair_jax.models.huggingface.tensor_names import tensors
    from stair_jax.storage import write_json

    values = {**KNOWN[MODEL].config, "num_hidden_layers": layers}
    write_json(folder / "config.json", values)
    found = tensors(ModelConfig.from_huggingface(values))
    shapes = {name: found[name].shape for name in sorted(found)}
    write_file(folder / SINGLE_FILE, shapes, "bfloat16", _random_values(shapes))


def _random_values(shapes: dict[str, tuple[int, ...]]) -> Iterator[Any]:
    import math

    import ml_dtypes
    import numpy as np

    rng = np.random.default_rng(0)
    for shape in shapes.values():
        left = math.prod(shape)
        while left:
            count = min(left, _CHUNK_VALUES)
            # Of any sign, between 2**-6 and 2: all of these bits make finite numbers.
            bits = rng.integers(0x3C80, 0x4000, count, np.uint16)
            bits |= rng.integers(0, 2, count, np.uint16) << 15
            yield bits.view(ml_dtypes.bfloat16)
            left -= count


def measure(folder: Path, fsdp: int, tensor: int, dtype: str) -> None:
    """Imports the checkpoint on a mesh of simulated devices and prints what it took."""
    import dataclasses
    import math

    import jax
    import numpy as np

    jax.config.update("jax_num_cpu_devices", fsdp * tensor)
    from stair_jax.models import huggingface
    from stair_jax.models.huggingface import tensor_names
    from stair_jax.models.layout import fit_to_mesh
    from stair_jax.parallel.mesh import MeshShape, make_mesh

    mesh = make_mesh(MeshShape(fsdp=fsdp, tensor=tensor))
    config = dataclasses.replace(huggingface.load_config(folder), param_dtype=dtype)
    config = fit_to_mesh(config, mesh, vocab_multiple=128)
    before = status("RssAnon"), status("VmRSS")
    with AnonymousPeak() as anonymous:
        start = time.perf_counter()
        params = jax.block_until_ready(huggingface.load_params(folder, config, mesh))
        seconds = time.perf_counter() - start
    local = sum(
        shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards
    )
    sizes = [math.prod(found.shape) for found in tensor_names.tensors(config).values()]
    largest = max(sizes) * np.dtype(dtype).itemsize
    peaks = anonymous.peak - before[0], status("VmHWM") - before[1]
    above = max(peaks) - local
    figures = {
        "checkpoint": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "largest_tensor": largest,
        "local_shards": local,
        "peak_anonymous": peaks[0],
        "peak_resident": peaks[1],
        "above_shards": above,
    }
    line = {"name": "import", "fsdp": fsdp, "tensor": tensor, "dtype": dtype}
    line |= {name: round(size / 1e9, 3) for name, size in figures.items()}
    line |= {"ratio": round(above / largest, 3), "bar": BAR, "seconds": round(seconds, 1)}
    print(json.dumps(line), flush=True)


class AnonymousPeak:
    """The most anonymous memory of this process within the block, looked at all the time."""

    def __init__(self, every: float = 0.005):
        """Looks `every` so many seconds."""
        self.peak = 0
        self._every = every
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "AnonymousPeak":
        """Starts to look."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(self._every):
            self.peak = max(self.peak, status("RssAnon"))


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, f"/proc/self/status has no {field}"
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main()
