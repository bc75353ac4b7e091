"""How a SegTrainer evaluates: counts for SegMetrics, logits for everyone else."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR
from transformers.trainer_utils import PredictionOutput

from hfseg.config import EvalConfig
from hfseg.errors import UserError
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics
from hfseg.models import inference_copy
from hfseg.training.callbacks import best_metric_is_undefined, best_metric_key
from hfseg.training.counting import count_images
from hfseg.training.resumable_trainer import ResumableTrainer

Batch = dict[str, Any]  # tensors, and `names`

logger = logging.getLogger(__name__)


class ScoringTrainer(ResumableTrainer):
    """The stock Trainer, whose evaluations count at the labels' native size where a `SegMetrics` scores them.

    Attributes:
        labels: the classes, where they are known.
        evaluation: how images are counted.
        scored_names: of the images that this process has scored in the last evaluation.
    """

    labels: LabelSet
    evaluation: EvalConfig
    compute_metrics: Callable[..., dict[str, Any]] | None

    def __init__(self, *trainer_arguments: Any) -> None:
        super().__init__(*trainer_arguments)
        self.scored_names: list[str] = []
        self._inference_copy: nn.Module | None = None  # while evaluating
        self._counts_by_default = False  # without `compute_metrics`

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """The evaluations of the training: of the averaged weights, if there are any."""
        with nullcontext() if self._average is None else self._average.in_place_of(self.model):
            metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        waits_for_a_metric = isinstance(self.lr_scheduler, ReduceLROnPlateau | GreedyLR) and not skip_scheduler
        if waits_for_a_metric and not best_metric_is_undefined(self.args, metrics):
            self.lr_scheduler.step(metrics[best_metric_key(self.args)])
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """The stock method, for which an undefined metric is not better than anything."""
        if not best_metric_is_undefined(self.args, metrics):
            return super()._determine_best_metric(metrics, trial)
        if not self._undefined_is_said:
            logger.warning(
                "metric_for_best_model=%s is undefined at step %d: such an evaluation chooses no checkpoint.",
                self.args.metric_for_best_model, self.state.global_step,
            )  # fmt: skip
        self._undefined_is_said = True
        return False

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The stock loader, but `SegMetrics` score every image: `dataloader_drop_last` is for training.

        So are persistent workers: with them, stock would score its first evaluation set whatever set it is given.
        """
        if not isinstance(self.compute_metrics, SegMetrics):
            return super().get_eval_dataloader(eval_dataset)
        args = self.args
        kept = args.dataloader_drop_last, args.dataloader_persistent_workers
        args.dataloader_drop_last = args.dataloader_persistent_workers = False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            args.dataloader_drop_last, args.dataloader_persistent_workers = kept

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """The stock method: logits and labels; the counts of `count_images` where a `SegMetrics` was given."""
        with self._without_default_metrics():
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    @contextmanager
    def _without_default_metrics(self) -> Iterator[None]:
        kept = self.compute_metrics
        self.compute_metrics = None if self._counts_by_default else kept
        try:
            yield
        finally:
            self.compute_metrics = kept

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The stock loop, from a clean count even where the last evaluation ended in an exception."""
        if not isinstance(self.compute_metrics, SegMetrics):
            return super().evaluation_loop(*args, **kwargs)
        self.compute_metrics.reset()
        self.scored_names = []
        whole = self._gathered()
        folded = inference_copy(self.model if whole is None else whole)
        self._inference_copy = whole if folded is None else folded
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._inference_copy = None
            if whole is not None:
                whole.cpu()

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """Counts instead of logits, for `SegMetrics`; otherwise the stock method.

        Returns:
            No loss (its mean per batch would be wrong for a short last batch; `SegMetrics` has the exact one); what
            `count_images` returns, per image because the Trainer cuts the padding of the last distributed batch by
            rows; a placeholder for the labels.
        """
        metrics = self.compute_metrics
        if not isinstance(metrics, SegMetrics) or inputs.get("labels") is None:
            return self._logits_and_labels(model, inputs, prediction_loss_only, ignore_keys)
        names, sizes = inputs.get("names", []), inputs.get("sizes")
        self.scored_names += names
        inputs = self._prepare_inputs(inputs)
        about = {"names": names, "sizes": all_sizes(inputs["labels"]) if sizes is None else sizes}
        network = self._inference_copy or model
        with torch.no_grad(), self.accelerator.autocast():
            counts = count_images(
                network, inputs | about, self.evaluation, self.labels.ignore_index, **metrics.options
            )
        loss_sums = counts["loss"]
        if prediction_loss_only:
            return loss_sums[:, 0].sum() / loss_sums[:, 1].sum().clamp(min=1), None, None
        return None, counts, loss_sums.new_zeros(len(loss_sums), 1)

    def _logits_and_labels(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None
    ) -> tuple[Any, Any, Any]:
        if isinstance(inputs.get("pixel_values"), list):
            raise UserError(
                "The images of a batch have different sizes, so their logits fit into no tensor. Resize them to one "
                "size, set per_device_eval_batch_size=1, or evaluate with SegMetrics."
            )
        return super().prediction_step(NamedLogits(model), inputs, prediction_loss_only, ignore_keys)


class NamedLogits(nn.Module):
    """A network whose outputs have names, as stock expects them: the logits of one that returns nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Any) -> Any:
        outputs = self.network(**inputs)
        return {"logits": outputs} if isinstance(outputs, torch.Tensor) else outputs


def all_sizes(labels: torch.Tensor) -> torch.Tensor:
    """Height and width (B, 2) of each label map of a batch without padding."""
    return torch.tensor([tuple(labels.shape[-2:])] * len(labels))
