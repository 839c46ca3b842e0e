"""Terms of the DPO loss against length, for noisy labels and for value gaps."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from stair_jax.data.packing import Example
from stair_jax.data.records import StepPair
from stair_jax.errors import UserError
from stair_jax.stages.dpo import Dpo, check_first_step
from stair_jax.stages.dpo_data import check_values
from stair_jax.stages.training_samples import step_sample
from stair_jax.training import objectives
from stair_jax.training.batches import Batches, Group
from stair_jax.training.losses import dpo_margin, pair_loss, step_dpo_loss
from stair_jax.training.objectives import DpoObjective
from stair_jax.training.pair_loss import VALUE_GAP, PairLossSettings
from stair_jax.training.step import micro_at

# Two pairs after the prompt 9: tokens of both sides, log-probs under the reference, value gaps.
SIDES = [([3, 5], [4]), ([1, 1, 2], [6, 2, 1, 1])]
REFERENCE, GAPS = [(-7.0, -4.5), (-4.0, -11.0)], [0.5, 2.0]


@pytest.fixture
def sums_of(config, monkeypatch):
    """`sums_of(**terms)`: of both pairs, beta 0.5; a token's log-prob is minus its own number."""
    monkeypatch.setattr(
        objectives, "micro_logps", lambda *args: -args[3]["targets"].astype(jnp.float32)
    )

    def sums_of(values=True, **terms):
        groups = [
            Group(
                str(number),
                tuple(Example([9, *side], [0] + [1] * len(side)) for side in sides),
                {"ref_chosen": chosen, "ref_rejected": rejected}
                | ({VALUE_GAP: gap} if values else {}),
            )
            for number, (sides, (chosen, rejected), gap) in enumerate(
                zip(SIDES, REFERENCE, GAPS, strict=True)
            )
        ]
        # A batch of three with two groups: the third place is not in use.
        batch = Batches([*groups, *groups[:1]], 3, 8, 8)[0]
        batch.arrays["micro"]["group_weight"][0, list(batch.members[0]).index(2)] = 0
        objective = DpoObjective(config, 0.5, 0.0, terms=PairLossSettings(**terms))
        return objective({"layers": {}}, micro_at(batch.arrays["micro"], 0))

    return sums_of


def softplus(*numbers):
    return sum(math.log1p(math.exp(number)) for number in numbers)


# Log-ratios: -8 + 7 = -1 and -4 + 4.5 = .5; -4 + 4 = 0 and -10 + 11 = 1. Margins .5 * -1.5 = -.75
# and .5 * -1 = -.5; of the means .5 * (-1 / 2 - .5 / 1) = -.5 and .5 * (0 - 1 / 4) = -.125.
@pytest.mark.parametrize(
    ("terms", "loss", "margin", "offset"),
    [
        ({}, softplus(0.75, 0.5), -1.25, None),
        # 0.1 * (2 - 1) and 0.1 * (3 - 4) are added.
        ({"length_penalty": 0.1}, softplus(0.65, 0.6), -1.25, 0.0),
        ({"length_normalize": True}, softplus(0.5, 0.125), -0.625, None),
        ({"value_margin": 0.2}, softplus(0.85, 0.9), -1.25, -0.5),
        ({"length_penalty": 0.1, "value_margin": 0.2}, softplus(0.75, 1.0), -1.25, -0.5),
        (
            {"label_smoothing": 0.25},
            0.75 * softplus(0.75, 0.5) + 0.25 * softplus(-0.75, -0.5),
            -1.25,
            None,
        ),
    ],
)
def test_each_term_by_hand(sums_of, terms, loss, margin, offset):
    sums = sums_of(**terms)
    assert float(sums.loss) == pytest.approx(loss, rel=1e-6)
    assert float(sums.weight) == 2
    assert float(sums.metrics["margin"]) == pytest.approx(margin)
    assert float(sums.metrics["chosen_length"]) == 5 == float(sums.metrics["rejected_length"])
    assert float(sums.metrics["accuracy"]) == 0
    assert ("length_margin" in sums.metrics) == bool(terms)
    assert ("offset" in sums.metrics) == (offset is not None)
    if offset is not None:
        assert float(sums.metrics["offset"]) == pytest.approx(offset, abs=1e-6)


def test_the_loss_at_the_reference_is_that_of_the_offsets_alone(sums_of):
    sums = sums_of(length_penalty=0.1, value_margin=0.2, label_smoothing=0.1)
    offsets = (0.1 - 0.1, -0.1 - 0.4)  # 0.1 * (tokens more) - 0.2 * gap
    wanted = 0.9 * softplus(*(-o for o in offsets)) + 0.1 * softplus(*offsets)
    assert float(sums.metrics["loss_at_reference"]) == pytest.approx(wanted, rel=1e-6)


def test_neutral_terms_are_the_loss_of_the_paper_to_the_bit(sums_of):
    sums = sums_of(values=False)
    arrays = [
        jnp.float32(values) for values in ([-8, -4], [-4, -10], *zip(*REFERENCE, strict=True))
    ]
    assert float(sums.loss) == float(step_dpo_loss(*arrays, beta=0.5).sum())
    assert PairLossSettings().is_neutral and not PairLossSettings(value_margin=0.1).is_neutral


def test_losses_and_gradients_are_those_of_torch():
    generator = np.random.default_rng(0)
    logps = -20 * generator.random((4, 6))
    lengths = generator.integers(1, 30, (2, 6))
    margin = dpo_margin(*map(jnp.array, logps), 3.0, tuple(map(jnp.array, lengths)))
    ratios = (torch.tensor(logps[:2] - logps[2:])) / torch.tensor(lengths)
    expected = 3 * (ratios[0] - ratios[1])
    np.testing.assert_allclose(margin, expected, rtol=1e-5)
    smoothed = -0.8 * functional.logsigmoid(expected) - 0.2 * functional.logsigmoid(-expected)
    np.testing.assert_allclose(pair_loss(margin, 0.2), smoothed, rtol=1e-5)


def test_smoothed_labels_bound_the_margin():
    """The loss is least where sigmoid(margin) is the share of right labels."""
    margins = jnp.linspace(-6, 6, 1201)
    best = margins[jnp.argmin(pair_loss(margins, 0.1))]
    assert float(best) == pytest.approx(math.log(0.9 / 0.1), abs=0.01)
    assert float(pair_loss(jnp.array(0.0), 0.1)) == pytest.approx(math.log(2))


def test_the_first_step_is_compared_with_the_loss_at_the_reference():
    values = {"dpo_loss": 0.9, "margin": 0.0, "loss_at_reference": 0.9}
    check_first_step(0, values, 1e-3)
    with pytest.raises(RuntimeError, match=r"loss 0.900000 \(not 0.693147\)"):
        check_first_step(0, values | {"loss_at_reference": math.log(2)}, 1e-3)
    with pytest.raises(RuntimeError, match=r"margin 0\.020000"):
        check_first_step(0, values | {"margin": 0.02}, 1e-3)


def test_pairs_without_values_are_counted_and_a_file_of_them_refused(capsys):
    bare = StepPair("a", "p", (), "x", "y")
    valued = StepPair("b", "p", (), "x", "y", chosen_value=1.5, rejected_value=-0.5)
    assert (bare.value_gap, valued.value_gap) == (None, 2.0)
    check_values("dpo", 0.1, [bare, valued])
    assert "dpo: 1 of 2 pairs have no values, and so no value margin" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"value_margin is 0.1, and no pair has chosen_value"):
        check_values("dpo", 0.1, [bare])
    settings = Dpo(value_margin=0.1)
    gaps = [settings._values(row, -1.0, -2.0)[VALUE_GAP] for row in (bare, valued)]
    assert gaps == [0.0, 2.0]


def test_new_terms_are_no_part_of_what_a_stage_was_before():
    assert not {"length_penalty", "value_margin", "label_smoothing", "length_normalize"} & set(
        Dpo().identity()
    )
    assert Dpo(length_penalty=0.01).identity()["length_penalty"] == 0.01
    with pytest.raises(UserError, match=r"label_smoothing is 0.5: it must be .* below 0.5"):
        Dpo(label_smoothing=0.5)


def test_a_sample_shows_rewards_as_the_loss_has_them():
    row = StepPair("a", "p", (), "x", "y")
    sides = (Example([1, 2, 3], [0, 1, 1]), Example([1, 2], [0, 1]))
    group = Group("a", sides, {"ref_chosen": -3.0, "ref_rejected": -2.0})
    sums = step_sample(0.5, False, row, group, np.array([-2.0, -4.0])).values
    means = step_sample(0.5, True, row, group, np.array([-2.0, -4.0])).values
    assert (sums["chosen_reward"], sums["rejected_reward"], sums["margin"]) == (0.5, -1.0, 1.5)
    assert (means["chosen_reward"], means["rejected_reward"], means["margin"]) == (0.25, -1.0, 1.25)
