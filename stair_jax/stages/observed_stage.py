"""Stages whose training is observed: the loss of held-out rows, and text samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.errors import UserError
from stair_jax.models.transformer import Params
from stair_jax.planning.program import Program
from stair_jax.planning.training import forward_pass
from stair_jax.settings import setting
from stair_jax.stages.training_stage import Setup, TrainingData, TrainingStage
from stair_jax.training.checks import Check, Seen
from stair_jax.training.evaluation import evaluate, micro_sums


@dataclass(frozen=True)
class ObservedStage(TrainingStage):
    """Settings of what is observed, beside those of all training.

    Attributes:
      eval_every: steps between two evaluations of the held-out rows (`held_out`): loss and metrics
        as of training, named "eval/loss" and so on, without the gradients and updates; 0: after
        the last step alone.
      samples_every: steps between two text samples in log, `samples.jsonl`, TensorBoard and W&B;
        0: none.
    """

    eval_every: int = setting(0, least=0, cost=True)
    samples_every: int = setting(0, least=0, cost=True)

    held_out = 0.0  # a field of each kind: what it means differs

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if self.eval_every and not self.held_out:
            raise UserError(
                f"eval_every is {self.eval_every}, and there is nothing to evaluate: set held_out, "
                "a share or a number of rows, or eval_every to 0"
            )

    def checks(self, setup: Setup, data: TrainingData) -> Sequence[Check]:
        """The evaluation first, where there are held-out rows; then the samples."""
        found = []
        if (batches := data.held_out) is not None:
            objective = self.objective(setup.config)

            def look(step: int, params: Params) -> Seen:
                return Seen(values=evaluate(objective, params, batches, setup.mesh))

            found.append(Check("eval", self.eval_every, True, look))
        if self.samples_every and (sample := data.sample) is not None:
            # Numbered from 0, so that each time others come.
            def show(step: int, params: Params) -> Seen:
                return Seen(samples=sample(step // self.samples_every - 1, params))

            found.append(Check("sample", self.samples_every, False, show))
        return found

    def evaluation_program(self, setup: Setup) -> Program:
        """The pass over held-out rows."""
        params = self.abstract_trainable(setup)
        return forward_pass(
            f"{self.STEP.removesuffix(' step')} evaluation",
            setup.config,
            micro_sums,
            (self.objective(setup.config), params),
            params.get("model", params),
            self.any_batch(setup),
            setup.mesh,
            head=self.LOGITS,
        )
