"""SegTrainer: the stock Trainer, where its measured behaviour is right for segmentation; ours where it is not."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainingArguments

from hfseg.config import EvalConfig, LossConfig
from hfseg.data import SegCollator, normalise
from hfseg.errors import UserError
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, compute_from_confusion
from hfseg.models import PLAIN, class_logits, segmentation_loss
from hfseg.training.arguments import as_user_error, check_schedule
from hfseg.training.classes import check_classes, is_segmentation_model, labels_of
from hfseg.training.optimizer import parameter_groups
from hfseg.training.resumable_trainer import DIVERGED_REMEDY
from hfseg.training.scoring_trainer import Batch, ScoringTrainer
from hfseg.training.sync_batch_norm import synchronise_batch_norms

OF_THE_BATCH = ("sizes", "names")  # what a `SegCollator` says of a batch, beside what a model takes
ONE_PASS = EvalConfig()


class SegTrainer(ScoringTrainer):
    """`transformers.Trainer` for any semantic segmentation model, with exact losses and metrics.

    It takes what `Trainer` takes, positional too, and a script changes one word. What differs from stock, and why:

    * The loss is computed outside the model, from its small logits, and divided by the number of valid pixels of the
      whole optimizer step. Stock SegFormer averages per micro-batch and ignores the accumulated count.
    * The log has `train_mean_iou`, from all pixels since the last log.
    * Without `compute_metrics`, `evaluate` scores with `SegMetrics`: it returns counts per image at the labels' native
      size instead of logits, which would fill the memory.
    * A checkpoint that does not fit the model entirely is an error; stock only warns.
    * A checkpoint is whole or not there, and a training that goes on from it is the uninterrupted one, logs included.
    * A loss that is NaN or infinite stops the training; stock trains on.
    * A metric that is undefined, such as the IoU of a class that an evaluation has not seen, is never the best one
      and moves no learning rate; stock stops with a TypeError.

    A `compute_loss_func`, `compute_metrics`, collator or optimizer of your own is used as stock uses it. So is any
    other model, which is trained as stock trains it: the first three points are for models that
    `AutoModelForSemanticSegmentation` knows, and for every model once `labels` are given. That may be a plain
    `nn.Module` whose `forward(pixel_values=...)` returns logits (B, K, h, w).

    Args:
        model: as in `Trainer`, like everything down to `preprocess_logits_for_metrics`.
        args: likewise; they are left as they are.
        data_collator: by default a `SegCollator(labels)`.
        compute_metrics: by default a `SegMetrics(labels)`. `predict` returns logits like stock's, unless a
            `SegMetrics` is given here.
        labels: the classes; by default those of a `SegCollator` or `SegMetrics` that is given, or of the model's
            config, see `LabelSet.of_config`.
        loss: options of the training loss; evaluation always reports plain cross-entropy.
        evaluation: how `SegMetrics` are counted; `whole` and `slide` want an `EvalSet(native=True)`.
        head_lr_factor: learning rate of everything outside the encoder, in multiples of `learning_rate`. With it or
            `layer_decay` the optimizer has the groups of `parameter_groups`, otherwise stock's.
        layer_decay: what each layer of the encoder learns slower than the one above it, see `parameter_groups`.
        ema: decay of the average of the weights that is scored and kept in their place, see `WeightAverage`.

    Raises:
        UserError: the model, the collator or the metrics are for other classes than `labels`; `loss` or `evaluation`
            with functions of your own that would not look at them.

    Example: see the README.
    """

    optimizer: torch.optim.Optimizer | None
    compute_loss_func: Callable[..., torch.Tensor] | None
    _is_set_up = False  # for segmentation; stock makes the first model before

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., torch.Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, LRScheduler | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        *,
        labels: LabelSet | None = None,
        loss: LossConfig = PLAIN,
        evaluation: EvalConfig = ONE_PASS,
        head_lr_factor: float | None = None,
        layer_decay: float | None = None,
        ema: float | None = None,
    ) -> None:
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class, model_init, compute_loss_func,
            compute_metrics, callbacks, optimizers, optimizer_cls_and_kwargs, preprocess_logits_for_metrics,
        )  # fmt: skip
        self.loss, self.evaluation, self.ema = loss, evaluation, ema
        self.head_lr_factor, self.layer_decay = head_lr_factor, layer_decay
        if labels is not None or is_segmentation_model(self.model):
            self._set_up_segmentation(labels, data_collator)

    def _set_up_segmentation(self, labels: LabelSet | None, data_collator: Any) -> None:
        """Sets the classes, the loss, the collator and the metrics of a semantic segmentation."""
        self.labels = labels or labels_of(self.model, data_collator, self.compute_metrics)
        self._train_confusion = torch.zeros(self.labels.num_labels, self.labels.num_labels, dtype=torch.int64)
        if self.compute_loss_func is None:
            # With one, Trainer leaves labels out of the model's call and our sum / count unscaled.
            self.compute_loss_func, self._trains_segmentation = self._step_loss, True
        elif self.loss != PLAIN:
            raise UserError("`loss` has options, and `compute_loss_func` computes the loss: leave one of them out.")
        self.label_names = self.args.label_names or ["labels"]  # also where `forward` does not take them
        if data_collator is None:
            self.data_collator = SegCollator(self.labels)
        if self.compute_metrics is None:
            self.compute_metrics, self._counts_by_default = SegMetrics(self.labels), True
        elif not isinstance(self.compute_metrics, SegMetrics) and self.evaluation != ONE_PASS:
            raise UserError("`evaluation` is how SegMetrics are counted: leave `evaluation` or `compute_metrics` out.")
        if self.args.label_smoothing_factor:
            raise UserError(
                f"label_smoothing_factor={self.args.label_smoothing_factor} is for texts. Leave it out, and give "
                f"SegTrainer loss=LossConfig(label_smoothing={self.args.label_smoothing_factor})."
            )
        if self.args.n_gpu > 1:
            raise UserError(
                f"{self.args.n_gpu} GPUs are visible to one process, where Trainer would use DataParallel. Start one "
                "process per GPU (`accelerate launch scripts/run_seg.py ...`) or choose one (CUDA_VISIBLE_DEVICES=0)."
            )
        self._set_up_model(self.model)
        self._is_set_up = True

    def _set_up_model(self, model: nn.Module) -> None:
        check_classes(self.labels, model, self.data_collator, self.compute_metrics)
        if self.args.world_size > 1 and self.args.device.type == "cuda":
            synchronise_batch_norms(model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The stock method; every model that it makes is set up as the first one was."""
        model = super().call_model_init(trial)
        if self._is_set_up:
            self._set_up_model(model)
        return model

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """The stock method on what the model takes: bytes come to the device and are normalised there."""
        if not isinstance(inputs, dict):
            return super()._prepare_inputs(inputs)
        return super()._prepare_inputs(normalise({key: inputs[key] for key in inputs if key not in OF_THE_BATCH}))

    def _get_collator_with_removed_columns(
        self, data_collator: Callable[..., Any], description: str | None = None
    ) -> Callable[..., Any]:
        """A `SegCollator` takes of a sample what it needs, also what is no argument of the model's `forward`."""
        if isinstance(data_collator, SegCollator):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        """Valid pixels of one optimizer step, over all its micro-batches and processes (stock counts 255 too)."""
        if not self._trains_segmentation or not all("labels" in batch for batch in batch_samples):
            return super()._get_num_items_in_batch(batch_samples, device)
        ignored = self.labels.ignore_index
        valid = sum((batch["labels"] != ignored).sum() for batch in batch_samples)
        total = torch.as_tensor(valid, device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def _step_loss(
        self, outputs: Any, labels: torch.Tensor | None, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The `compute_loss_func`: sums over valid pixels, divided by their number in the whole step."""
        if labels is None:
            raise UserError(
                "A training sample has no `labels`: the loss needs class ids (height, width) for each image."
            )
        main = segmentation_loss(class_logits(outputs), labels, self.labels.ignore_index, self.loss)
        if self.model.training:
            self._train_confusion = self._train_confusion.to(labels.device) + main.confusion[:, :-1].sum(0)
        total = main.total
        auxiliary_logits = outputs.get("auxiliary_logits") if isinstance(outputs, dict) else None
        if auxiliary_logits is not None and self.loss.aux_weight > 0:
            auxiliary = segmentation_loss(class_logits(auxiliary_logits), labels, self.labels.ignore_index, self.loss)
            total = total + self.loss.aux_weight * auxiliary.total
        num_valid = main.num_valid if num_items_in_batch is None else num_items_in_batch
        return total / num_valid.clamp(min=1)

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
        if self._trains_segmentation and not torch.isfinite(loss):
            raise UserError(
                f"The training has diverged: the loss of step {self.state.global_step + 1} is {loss.item()}{samples}. "
                f"{DIVERGED_REMEDY}"
            )
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer; with `head_lr_factor` or `layer_decay` over the groups of `parameter_groups`."""
        if self.optimizer is not None or (self.head_lr_factor is None and self.layer_decay is None):
            return super().create_optimizer(model)
        groups = parameter_groups(self.model, self.args, self.head_lr_factor or 1.0, self.layer_decay)
        with as_user_error(f"train.optim={self.args.optim.value}, with its train.optim_args, adam_* and rates,"):
            chosen = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
            optimizer_class, arguments = chosen
            self.optimizer = optimizer_class(groups, **arguments)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The stock scheduler; raises UserError for a wrong `lr_scheduler_kwargs` now and not at its first use."""
        if self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen = f"train.lr_scheduler_type={self.args.lr_scheduler_type.value}"
        with as_user_error(f"{chosen} with train.lr_scheduler_kwargs={self.args.lr_scheduler_kwargs}"):
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            check_schedule(scheduler, num_training_steps)
        return scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds `train_mean_iou` to the lines that carry the training loss, and `seconds` of training to all of it."""
        if not self._trains_segmentation:
            super().log(logs, start_time)
            return
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
