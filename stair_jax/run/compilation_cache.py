"""Compiled programs, kept on disk for the next start."""

import os
import platform
from pathlib import Path

from stair_jax.storage import fingerprint


def use_compilation_cache(folder: str | Path) -> None:
    """Keeps compiled programs in a folder; JAX's own environment variable counts more."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(for_this_processor(folder)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()  # what was compiled before had none


def for_this_processor(folder: str | Path) -> Path:
    """Where in a folder the programs for this machine are.

    XLA compiles for the very processor that it runs on, so that each kind of processor has a folder
    of its own.
    """
    return Path(folder).expanduser().absolute() / fingerprint(_processor())[:12]


def cache_folder() -> Path | None:
    """The folder that `use_compilation_cache` was called with; None: it was not."""
    import jax

    used = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return Path(used).parent if used and "JAX_COMPILATION_CACHE_DIR" not in os.environ else None


def users_cache() -> Path:
    """The user's folder of caches, for compiled programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stair_jax"


def _processor() -> list[str]:
    """The architecture of this machine's processor, and its features where Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return [platform.machine(), *features[:1]]
