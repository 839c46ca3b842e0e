"""A folder that nobody else can enter."""

import stat

from stair_jax.cluster.private_folder import PrivateFolder


def test_other_users_cannot_enter_it_whatever_ray_makes_of_its_own():
    with PrivateFolder() as folder:
        folder.inside.chmod(0o777)
        assert stat.S_IMODE(folder.inside.parent.stat().st_mode) == 0o700
        (folder.inside / "session").mkdir()
    assert not folder.inside.parent.exists()
