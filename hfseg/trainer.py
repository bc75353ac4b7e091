"""SegTrainer: the stock Trainer, where its measured behaviour is right for segmentation; ours where it is not."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_outputs import SemanticSegmenterOutput

from hfseg.boundary import boundary_areas
from hfseg.config import EvalConfig, LossConfig
from hfseg.data.samples import normalise
from hfseg.errors import UserError
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics
from hfseg.models.auto_model import reload
from hfseg.models.fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.freezing import encoder_name
from hfseg.models.inference import inference_copy
from hfseg.models.loss import PLAIN, SegmentationLoss, segmentation_loss
from hfseg.models.segformer import HfsegSegformerForSemanticSegmentation
from hfseg.models.windows import forward_logits, score_image, views
from hfseg.scores import compute_from_confusion

Batch = dict[str, torch.Tensor]
ONE_PASS = EvalConfig()


class SegTrainer(Trainer):
    """`transformers.Trainer` for any semantic segmentation model, with exact losses and metrics.

    What differs from the stock Trainer, and why:

    * The loss is computed outside the model, from its small logits, and divided by the number of valid pixels of the
      whole optimizer step. Stock SegFormer averages per micro-batch and ignores the accumulated count.
    * The log has `train_mean_iou`, from all pixels since the last log.
    * Evaluation returns counts per image at the labels' native size instead of logits, which would fill the memory.
    * A checkpoint that does not fit the model entirely is an error; stock only warns.

    Args:
        labels: the classes.
        loss: options of the training loss; evaluation always reports plain cross-entropy.
        evaluation: how evaluation runs; `whole` and `slide` want an `EvalSet(native=True)`.
        head_lr_factor: learning rate of everything outside the encoder, in multiples of `learning_rate`.
        trainer_arguments: those of `transformers.Trainer`, unchanged; `data_collator` should be a `SegCollator`,
            `compute_metrics` is a `SegMetrics(labels)` unless given.

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
        **trainer_arguments: Any,
    ) -> None:
        self.labels = labels
        self.loss = loss
        self.evaluation = evaluation
        self.head_lr_factor = head_lr_factor
        trainer_arguments.setdefault("compute_metrics", SegMetrics(labels))
        # With a `compute_loss_func`, Trainer leaves labels out of the model's call and our sum / count unscaled.
        super().__init__(compute_loss_func=self._step_loss, **trainer_arguments)
        if self.args.n_gpu > 1:
            raise UserError(
                f"{self.args.n_gpu} GPUs are visible to one process, where Trainer would use DataParallel. Start one "
                "process per GPU (`accelerate launch scripts/run_seg.py ...`) or choose one (CUDA_VISIBLE_DEVICES=0)."
            )
        self.add_callback(EpochCallback())
        self._inference_copy: nn.Module | None = None
        self._train_confusion = torch.zeros(labels.num_labels, labels.num_labels, dtype=torch.int64)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """The stock method on a batch whose bytes have come to the device, and are normalised there."""
        return super()._prepare_inputs(normalise(inputs))

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
        inputs = {key: value for key, value in inputs.items() if key != "sizes"}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer over groups with the head's learning rate and without decay on norms and biases."""
        if self.optimizer is None:
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(self.model, self.args, self.head_lr_factor)
            self.optimizer = optimizer_class(groups, **arguments)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds `train_mean_iou` to the lines that carry the training loss."""
        if "loss" in logs:
            confusion = self.accelerator.reduce(self._train_confusion.to(self.args.device), "sum")
            logs["train_mean_iou"] = compute_from_confusion(np.asarray(confusion.cpu()))["mean_iou"]
            self._train_confusion.zero_()
        super().log(logs, start_time)

    # --- evaluation

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
            No loss (its mean per batch would be wrong for a short last batch; `SegMetrics` has the exact one);
            `confusion` (B, K+1, K), `loss` (B, 2: sum and valid pixels) and, for a SegMetrics with `boundary`,
            `boundary` (B, 5, 3, K), per image because the Trainer cuts the padding of the last distributed batch by
            rows; a placeholder for the labels.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            scores = self._score(self._inference_copy or model, inputs)
        loss_sums = torch.stack([torch.stack([score.total.double(), score.num_valid.double()]) for score, _ in scores])
        if prediction_loss_only:
            return loss_sums[:, 0].sum() / loss_sums[:, 1].sum().clamp(min=1), None, None
        counts = {"confusion": torch.cat([score.confusion for score, _ in scores]), "loss": loss_sums}
        contours = [areas for _, areas in scores if areas is not None]
        if contours:
            counts["boundary"] = torch.cat(contours)
        return None, counts, loss_sums.new_zeros(len(loss_sums), 1)

    def _score(self, network: nn.Module, inputs: Batch) -> list[tuple[SegmentationLoss, torch.Tensor | None]]:
        """The sums of each image at the size of its labels, and its counts near contours where the metrics ask."""
        images, ignored = inputs["pixel_values"], self.labels.ignore_index
        wants_contours = isinstance(self.compute_metrics, SegMetrics) and self.compute_metrics.boundary
        sizes = inputs["sizes"].tolist()
        labels = [padded[:height, :width] for padded, (height, width) in zip(inputs["labels"], sizes, strict=True)]
        if self.evaluation.is_plain and isinstance(images, torch.Tensor):
            return [
                (
                    segmentation_loss(small[None], label[None], ignored),
                    self._contours(small, label[None]) if wants_contours else None,
                )
                for small, label in zip(forward_logits(network, images), labels, strict=True)
            ]
        if wants_contours:
            raise UserError(
                "SegMetrics(boundary=True) needs an image's whole prediction, which eval.mode=slide, scales and flip "
                "never hold. Use eval.mode=resize."
            )
        each = images.split(1) if isinstance(images, torch.Tensor) else images
        return [
            (score_image(views(network, image, self.evaluation), label, ignored), None)
            for image, label in zip(each, labels, strict=True)
        ]

    def _contours(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Counts near contours of one image. They need its whole id map, and for a moment its upsampled logits."""
        upsampled = nn.functional.interpolate(logits[None].float(), size=labels.shape[1:], mode="bilinear")
        return boundary_areas(upsampled.max(1).indices, labels, self.labels.num_labels, self.labels.ignore_index)

    # --- checkpoints

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._has_other_names_on_disk():
            reload(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._has_other_names_on_disk():
            reload(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _has_other_names_on_disk(self) -> bool:
        """Whether weights may have to be translated, as `from_pretrained` does and the stock Trainer does not."""
        own = isinstance(self.model, HfsegSegformerForSemanticSegmentation | HfsegFCNForSemanticSegmentation)
        return not (own or self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Stock goes on with whatever fits, and trains or scores a half-initialised model."""
        if load_result.missing_keys or load_result.unexpected_keys:
            raise UserError(
                "The checkpoint does not fit the model: "
                f"{len(load_result.missing_keys)} tensors missing {load_result.missing_keys[:3]}, "
                f"{len(load_result.unexpected_keys)} unexpected {load_result.unexpected_keys[:3]}. "
                "It was written for another architecture or size."
            )


def parameter_groups(model: PreTrainedModel, args: TrainingArguments, head_lr_factor: float) -> list[dict[str, Any]]:
    """Four groups: encoder (see `encoder_name`) and head (everything else), each with and without weight decay.

    Norms and biases, that is every parameter with one dimension, are not decayed; stock decays BatchNorm. In a model
    that does not say what its encoder is, everything learns at the encoder's rate.
    """
    name = encoder_name(model)
    prefix = "" if name is None else name + "."
    groups = []
    for is_head, learning_rate in ((False, args.learning_rate), (True, args.learning_rate * head_lr_factor)):
        for is_decayed, weight_decay in ((True, args.weight_decay), (False, 0.0)):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and name.startswith(prefix) != is_head
                and (parameter.ndim > 1) == is_decayed
            ]
            if parameters:
                groups.append({"params": parameters, "lr": learning_rate, "weight_decay": weight_decay})
    return groups


class EpochCallback(TrainerCallback):
    """Tells the training set the epoch. accelerate does so too, but not under several processes."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        dataset = kwargs["train_dataloader"].dataset
        dataset.set_epoch(int(state.epoch or 0))


class HistoryCallback(TrainerCallback):
    """Writes every log of the training as a line of JSON; a resumed run first drops the lines after its checkpoint.

    Evaluations after the training, of the best weights, are results and not history.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_training = True
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_history(self.path) if line["step"] <= state.global_step and state.global_step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self.path)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.is_training and state.is_world_process_zero and logs:
            with self.path.open("a") as file:
                # JSON has neither NaN nor infinity
                finite = {key: None if _is_not_finite(value) else value for key, value in logs.items()}
                file.write(json.dumps(finite | {"step": state.global_step}, allow_nan=False) + "\n")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_training = False


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_history(path: Path) -> Sequence[dict[str, Any]]:
    """The lines of a history file, without one that a kill has torn."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
