import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stair_jax.training.losses import prm_loss, sft_loss, step_dpo_loss

DPO = [[-5.0, -2.0], [-7.0, -1.5], [-6.0, -2.0], [-6.5, -2.5]]  # chosen, rejected, reference


def test_sft_by_hand():
    loss, weight = sft_loss(jnp.array([[-1.0, -2.0, -4.0]]), jnp.array([[1.0, 0.0, 0.5]]))
    assert float(loss) == pytest.approx(1.0 + 2.0)
    assert float(weight) == pytest.approx(1.5)


def test_step_dpo_by_hand():
    # Margins 0.1 * ((-5 + 6) - (-7 + 6.5)) = 0.15 and 0.1 * ((-2 + 2) - (-1.5 + 2.5)) = -0.1;
    # log(1 + e^-0.15) = 0.6209570, log(1 + e^0.1) = 0.7443967.
    loss = step_dpo_loss(*map(jnp.array, DPO), beta=0.1)
    np.testing.assert_allclose(loss, [0.6209570, 0.7443967], rtol=1e-6)


def test_step_dpo_at_the_reference_is_log_2():
    same = jnp.array([-3.0]), jnp.array([-8.0])
    assert float(step_dpo_loss(*same, *same, beta=0.4)[0]) == pytest.approx(0.6931472)


def test_prm_by_hand():
    # log(1 + e^-2) = 0.1269280, log(1 + e^1) = 1.3132617; no overflow for large differences.
    loss = prm_loss(jnp.array([1.0, 0.0, -500.0]), jnp.array([-1.0, 1.0, 500.0]))
    np.testing.assert_allclose(loss, [0.1269280, 1.3132617, 1000.0], rtol=1e-6)


def test_gradients_against_torch():
    ours = jax.grad(lambda a, b: step_dpo_loss(a, b, *map(jnp.array, DPO[2:]), 0.3).sum(), (0, 1))(
        *map(jnp.array, DPO[:2])
    )
    tensors = [torch.tensor(side, requires_grad=index < 2) for index, side in enumerate(DPO)]
    margin = (tensors[0] - tensors[2]) - (tensors[1] - tensors[3])
    (-torch.nn.functional.logsigmoid(0.3 * margin).sum()).backward()
    for got, tensor in zip(ours, tensors[:2], strict=True):
        np.testing.assert_allclose(got, tensor.grad, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 1])
def test_prm_gradient_by_finite_differences(shift):
    scores = [jnp.array([0.3, -2.0]), jnp.array([1.0, 0.7])]
    gradient = jax.grad(lambda *s: prm_loss(*s).sum(), shift)(*scores)
    step = 1e-2
    for i in range(2):
        moved = [scores[shift].at[i].add(sign * step) for sign in (1, -1)]
        up, down = ([*scores[:shift], m, *scores[shift + 1 :]] for m in moved)
        numeric = (prm_loss(*up).sum() - prm_loss(*down).sum()) / (2 * step)
        assert float(gradient[i]) == pytest.approx(float(numeric), rel=1e-2)
