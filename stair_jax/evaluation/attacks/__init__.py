"""The attacks, by name."""

from stair_jax.evaluation.attacks.attack import Attack

_KINDS: tuple[type[Attack], ...] = ()

ATTACKS: dict[str, type[Attack]] = {kind.NAME: kind for kind in _KINDS}
