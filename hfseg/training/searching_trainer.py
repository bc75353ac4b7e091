"""A Trainer whose trials of a hyperparameter search are what trainings of their own would be."""

from collections.abc import Callable
from typing import Any

from hfseg.errors import UserError
from hfseg.metrics import SegMetrics
from hfseg.training.publishing_trainer import PublishingTrainer


class SearchingTrainer(PublishingTrainer):
    """The stock Trainer, whose trials know nothing of each other.

    Stock draws a trial's first weights with the seed of the trial before, keeps an argument that only an earlier trial
    has set, and leaves the arguments of the last trial behind.
    """

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], Any] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: str | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **backend_options: Any,
    ) -> Any:
        """The stock method. With `SegMetrics` its objective is `eval_mean_iou`, where stock adds up all metrics.

        The trainer's `args` are afterwards what they were before.

        Args:
            hp_space: as in `Trainer`, like all others.
            compute_objective: by default `eval_mean_iou` where a `SegMetrics` scores; otherwise as in `Trainer`.
            n_trials: how many trainings.
            direction: "maximize" for `eval_mean_iou`.
            backend: by default optuna.
            hp_name: the name of a trial's folder; by default `run-0` and so on.
            backend_options: of the backend, such as optuna's `sampler`, `pruner` and `storage`.

        Returns:
            A `BestRun`: `run_id`, `objective` and `hyperparameters`.

        Raises:
            UserError: `eval_mean_iou` is to be made small.
        """
        if compute_objective is None and isinstance(self.compute_metrics, SegMetrics):
            if direction != "maximize":
                raise UserError(
                    f"direction={direction!r} searches for the smallest eval_mean_iou. Pass direction='maximize', or "
                    "a compute_objective of your own, such as lambda metrics: metrics['eval_loss']."
                )
            compute_objective = _mean_iou
        kept = dict(vars(self.args))
        self._args_before_search = kept
        try:
            return super().hyperparameter_search(
                hp_space, compute_objective, n_trials, direction, backend, hp_name, **backend_options
            )
        finally:
            self.args.__dict__.update(kept)
            self._train_batch_size = self.args.train_batch_size

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """The stock method, which takes over a trial's arguments, its seed among them, before it makes the model."""
        if trial is not None and self.hp_search_backend is not None:
            self.args.__dict__.update(self._args_before_search)
            self._hp_search_setup(trial)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)


def _mean_iou(metrics: dict[str, float]) -> float:
    found = metrics["eval_mean_iou"]
    return float("nan") if found is None else found  # with which optuna says that the trial has failed
