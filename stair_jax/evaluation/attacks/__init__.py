"""The attacks, by name."""

from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.attacks.attack import Attack
from stair_jax.evaluation.attacks.augmentation import BestOfN
from stair_jax.evaluation.attacks.coded import (
    Base64,
    Base64Input,
    Base64Output,
    Base64Raw,
    Disemvowel,
    Leetspeak,
    Rot13,
)
from stair_jax.evaluation.attacks.decoding_sweep import DecodingSweep
from stair_jax.evaluation.attacks.forged_tags import ForgedTags
from stair_jax.evaluation.attacks.gcg import Gcg
from stair_jax.evaluation.attacks.many_shot import ManyShot
from stair_jax.evaluation.attacks.pair import Pair
from stair_jax.evaluation.attacks.persuasion import Pap, PapAuthority, PapMisrepresentation
from stair_jax.evaluation.attacks.phrased import (
    Combination1,
    Combination2,
    Combination3,
    Distractors,
    FewShotJson,
    Poems,
    PrefixInjection,
    RefusalSuppression,
    StyleJson,
    StyleShort,
    Wikipedia,
)
from stair_jax.evaluation.attacks.plain import Plain
from stair_jax.evaluation.attacks.prefill import Prefill, PrefillAnswer, PrefillFirstStep
from stair_jax.evaluation.attacks.random_search import RandomSearch
from stair_jax.evaluation.attacks.rewording import PastTense, Translation
from stair_jax.evaluation.attacks.role_play import RolePlay
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.attacks.stored import PREFIX, Stored, StoredPrompts, make_stored
from stair_jax.evaluation.attacks.tap import Tap

_KINDS: tuple[type[Attack], ...] = (
    Plain,
    Rot13,
    Base64,
    Base64Input,
    Base64Output,
    Base64Raw,
    Disemvowel,
    Leetspeak,
    RefusalSuppression,
    PrefixInjection,
    StyleShort,
    StyleJson,
    Distractors,
    Poems,
    Wikipedia,
    FewShotJson,
    Combination1,
    Combination2,
    Combination3,
    RolePlay,
    ManyShot,
    BestOfN,
    Prefill,
    PrefillFirstStep,
    PrefillAnswer,
    ForgedTags,
    DecodingSweep,
    Stored,
    Pair,
    Tap,
    Pap,
    PapMisrepresentation,
    PapAuthority,
    PastTense,
    Translation,
    RandomSearch,
    Gcg,
)

ATTACKS: dict[str, type[Attack]] = {kind.NAME: kind for kind in _KINDS}


def make_attack(
    name: str, settings: AttackSettings | None = None, stored: StoredPrompts | None = None
) -> Attack:
    """An attack by its name.

    Args:
      name: one of `ATTACKS`, or "stored:" and the name of a stored one.
      settings: of all attacks; None: the defaults.
      stored: prompts by attack and case of the benchmark at hand.

    Raises:
      UserError: there is no such attack, or a file of its settings cannot be used.
    """
    settings = settings or AttackSettings()
    if name == Stored.NAME or name.startswith(PREFIX):
        return make_stored(name, settings.stored, stored or {})
    if name not in ATTACKS:
        raise UserError(f"there is no attack {name!r}: {did_you_mean(name, ATTACKS)}")
    return ATTACKS[name].from_settings(settings)
