"""SegTrainer: the stock Trainer, where its measured behaviour is right for segmentation; ours where it is not."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.optimization import GreedyLR

from hfseg.config import EvalConfig, LossConfig
from hfseg.data import SegCollator, normalise
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, compute_from_confusion
from hfseg.models import (
    PLAIN,
    inference_copy,
    segmentation_loss,
)
from hfseg.training.arguments import check_schedule, refused
from hfseg.training.callbacks import EpochCallback, best_metric_is_undefined, best_metric_key
from hfseg.training.counting import count_images
from hfseg.training.optimizer import parameter_groups
from hfseg.training.resumable_trainer import DIVERGED_REMEDY, ResumableTrainer
from hfseg.training.sync_batch_norm import synchronise_batch_norms

Batch = dict[str, Any]  # tensors, and `names`

ONE_PASS = EvalConfig()

logger = logging.getLogger(__name__)


class SegTrainer(ResumableTrainer):
    """`transformers.Trainer` for any semantic segmentation model, with exact losses and metrics.

    What differs from the stock Trainer, and why:

    * The loss is computed outside the model, from its small logits, and divided by the number of valid pixels of the
      whole optimizer step. Stock SegFormer averages per micro-batch and ignores the accumulated count.
    * The log has `train_mean_iou`, from all pixels since the last log.
    * Evaluation returns counts per image at the labels' native size instead of logits, which would fill the memory.
    * A checkpoint that does not fit the model entirely is an error; stock only warns.
    * A checkpoint is whole or not there, and a training that goes on from it is the uninterrupted one, logs included.
    * A loss that is NaN or infinite stops the training; stock trains on.
    * A metric that is undefined, such as the IoU of a class that an evaluation has not seen, is never the best one
      and moves no learning rate; stock stops with a TypeError.

    Args:
        labels: the classes.
        loss: options of the training loss; evaluation always reports plain cross-entropy.
        evaluation: how evaluation runs; `whole` and `slide` want an `EvalSet(native=True)`.
        head_lr_factor: learning rate of everything outside the encoder, in multiples of `learning_rate`.
        layer_decay: what each layer of the encoder learns slower than the one above it, see `parameter_groups`.
        ema: decay of the average of the weights that is scored and kept in their place, see `WeightAverage`.
        trainer_arguments: those of `transformers.Trainer`, unchanged; `data_collator` is a `SegCollator(labels)` and
            `compute_metrics` a `SegMetrics(labels)` unless given.

    Raises:
        UserError: the model, the collator or the metrics are for other classes than `labels`.

    Example: see the README.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *,
        labels: LabelSet,
        loss: LossConfig = PLAIN,
        evaluation: EvalConfig = ONE_PASS,
        head_lr_factor: float = 1.0,
        layer_decay: float | None = None,
        ema: float | None = None,
        **trainer_arguments: Any,
    ) -> None:
        self.labels = labels
        self.loss = loss
        self.evaluation = evaluation
        self.head_lr_factor, self.layer_decay = head_lr_factor, layer_decay
        parts = {"compute_metrics": SegMetrics(labels), "data_collator": SegCollator(labels)}
        trainer_arguments |= {name: part for name, part in parts.items() if trainer_arguments.get(name) is None}
        # With a `compute_loss_func`, Trainer leaves labels out of the model's call and our sum / count unscaled.
        super().__init__(labels.num_labels, ema, compute_loss_func=self._step_loss, **trainer_arguments)
        self._check_classes()
        if self.args.n_gpu > 1:
            raise UserError(
                f"{self.args.n_gpu} GPUs are visible to one process, where Trainer would use DataParallel. Start one "
                "process per GPU (`accelerate launch scripts/run_seg.py ...`) or choose one (CUDA_VISIBLE_DEVICES=0)."
            )
        if self.args.world_size > 1 and self.args.device.type == "cuda":
            synchronise_batch_norms(self.model)
        self.add_callback(EpochCallback())
        self._inference_copy: nn.Module | None = None
        self.scored_names: list[str] = []  # of the images that this process has scored in the last evaluation

    def _check_classes(self) -> None:
        """Raises UserError where model, collator or metrics know other classes than `labels`."""
        own, model, metrics = self.labels, self.model, self.compute_metrics
        if isinstance(model, PreTrainedModel) and model.config.num_labels != own.num_labels:
            raise UserError(
                f"The model has {model.config.num_labels} outputs for {own.num_labels} classes "
                f"({shown(list(own.names))}). Build it with num_labels={own.num_labels}, or load it with "
                "id2label=labels.id2label, label2id=labels.label2id and ignore_mismatched_sizes=True."
            )
        others = {"data_collator": self.data_collator.labels} if isinstance(self.data_collator, SegCollator) else {}
        others |= {"compute_metrics": metrics.labels} if isinstance(metrics, SegMetrics) else {}
        for name, other in others.items():
            numbered = tuple(map(str, range(own.num_labels)))  # of a SegMetrics(3)
            if other.names not in (own.names, numbered) or other.ignore_index != own.ignore_index:
                raise UserError(
                    f"{name} is for the classes {shown(list(other.names))} with ignore_index={other.ignore_index}, "
                    f"the trainer's labels are {shown(list(own.names))} with ignore_index={own.ignore_index}. Make "
                    f"both from the same LabelSet, or leave {name} out."
                )

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """The stock method on a batch whose bytes have come to the device, and are normalised there."""
        return super()._prepare_inputs(normalise(inputs))

    def _get_collator_with_removed_columns(
        self, data_collator: Callable[..., Any], description: str | None = None
    ) -> Callable[..., Any]:
        """A `SegCollator` takes of a sample what it needs, also what the model's `forward` has no word for."""
        if isinstance(data_collator, SegCollator):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    # --- training

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> torch.Tensor:
        """Valid pixels of one optimizer step, over all its micro-batches and processes (stock counts 255 too)."""
        ignored = self.labels.ignore_index
        valid = sum((batch["labels"] != ignored).sum() for batch in batch_samples)
        total = torch.as_tensor(valid, device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def _step_loss(
        self, outputs: SemanticSegmenterOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor
    ) -> torch.Tensor:
        main = segmentation_loss(outputs["logits"], labels, self.labels.ignore_index, self.loss)
        self._train_confusion = self._train_confusion.to(labels.device) + main.confusion[:, :-1].sum(0)
        total = main.total
        auxiliary_logits = outputs.get("auxiliary_logits")
        if auxiliary_logits is not None and self.loss.aux_weight > 0:
            auxiliary = segmentation_loss(auxiliary_logits, labels, self.labels.ignore_index, self.loss)
            total = total + self.loss.aux_weight * auxiliary.total
        return total / num_items_in_batch.clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The stock method, which hands everything in the batch but the labels to the model."""
        inputs = {key: value for key, value in inputs.items() if key not in ("sizes", "names")}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """The stock method; raises UserError where the loss is NaN or infinite, before any weight has seen it."""
        names = inputs.get("names", [])
        samples = f" on the samples {', '.join(names[:16])}" if names else ""
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's words, of batch norms
                raise
            raise UserError(
                f"A batch norm over maps of one pixel cannot learn from a batch of one image{samples}. Train with "
                "per_device_train_batch_size=2 or more and dataloader_drop_last=True."
            ) from error
        if not torch.isfinite(loss):
            raise UserError(
                f"The training has diverged: the loss of step {self.state.global_step + 1} is {loss.item()}{samples}. "
                f"{DIVERGED_REMEDY}"
            )
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer over groups with the head's learning rate and without decay on norms and biases."""
        if self.optimizer is None:
            groups = parameter_groups(self.model, self.args, self.head_lr_factor, self.layer_decay)
            with refused(f"train.optim={self.args.optim.value}, with its train.optim_args, adam_* and rates,"):
                optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                self.optimizer = optimizer_class(groups, **arguments)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The stock scheduler; raises UserError for a wrong `lr_scheduler_kwargs` now and not at its first use."""
        chosen = f"train.lr_scheduler_type={self.args.lr_scheduler_type.value}"
        with refused(f"{chosen} with train.lr_scheduler_kwargs={self.args.lr_scheduler_kwargs}"):
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            check_schedule(scheduler, num_training_steps)
        return scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds `train_mean_iou` to the lines that carry the training loss, and `seconds` of training to all of it."""
        if self._began is not None:
            logs["seconds"] = round(time.monotonic() - self._began, 2)
        if "train_loss" in logs:  # stock has its mean over the steps since the last resume
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        if "loss" in logs:
            confusion = self.accelerator.reduce(self._train_confusion.to(self.args.device), "sum")
            counts = np.asarray(confusion.cpu())
            logs["train_mean_iou"] = compute_from_confusion(counts, self.labels.ignore_index)["mean_iou"]
            self._train_confusion.zero_()
        super().log(logs, start_time)

    # --- evaluation

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
        """The stock loader, but every image is scored: `dataloader_drop_last` is for training.

        So are persistent workers: with them, stock would score its first evaluation set whatever set it is given.
        """
        args = self.args
        kept = args.dataloader_drop_last, args.dataloader_persistent_workers
        args.dataloader_drop_last = args.dataloader_persistent_workers = False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            args.dataloader_drop_last, args.dataloader_persistent_workers = kept

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The stock loop, from a clean count even where the last evaluation ended in an exception."""
        if isinstance(self.compute_metrics, SegMetrics):
            self.compute_metrics.reset()
        self.scored_names = []
        self._inference_copy = inference_copy(self.model)
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._inference_copy = None

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor] | None, torch.Tensor | None]:
        """Counts instead of logits.

        Returns:
            No loss (its mean per batch would be wrong for a short last batch; `SegMetrics` has the exact one); what
            `count_images` returns, per image because the Trainer cuts the padding of the last distributed batch by
            rows; a placeholder for the labels.
        """
        inputs = self._prepare_inputs(inputs)
        self.scored_names += inputs.get("names", [])
        metrics = self.compute_metrics
        wanted = metrics.options if isinstance(metrics, SegMetrics) else {}
        network = self._inference_copy or model
        with torch.no_grad(), self.accelerator.autocast():
            counts = count_images(network, inputs, self.evaluation, self.labels.ignore_index, **wanted)
        loss_sums = counts["loss"]
        if prediction_loss_only:
            return loss_sums[:, 0].sum() / loss_sums[:, 1].sum().clamp(min=1), None, None
        return None, counts, loss_sums.new_zeros(len(loss_sums), 1)
