"""TLS of JAX's coordination service, which jax 0.12 and later read from the environment."""

import os
from collections.abc import Mapping

from stair_jax.errors import UserError

_FILES = ("JAX_MTLS_CERT_FILE", "JAX_MTLS_KEY_FILE", "JAX_MTLS_CA_FILE")


def check_tls(environment: Mapping[str, str], is_known: bool, version: str) -> None:
    """Checks that there will be TLS where it is asked for.

    Args:
      environment: variables of this process.
      is_known: whether this JAX has TLS; others would go on without a word.
      version: of JAX.

    Raises:
      UserError: JAX has none, or a file cannot be read.
    """
    if not any(name in environment for name in _FILES):
        return
    if not is_known:
        raise UserError(
            f"{' and '.join(_FILES[:2])} ask for TLS, which jax {version} does not have: install "
            "jax 0.12, or unset them"
        )
    for name in _FILES:
        if not os.access(environment.get(name, ""), os.R_OK):
            raise UserError(f"{name} is {environment.get(name, '')!r}: TLS needs a file here")
