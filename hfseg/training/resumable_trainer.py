"""A Trainer whose checkpoints are whole or not there, and whose resumed training is the uninterrupted one."""

import json
import logging
import time
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderAdapter
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import FSDP_MODEL_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from hfseg.data import StreamingTrainSet, TrainSet
from hfseg.errors import UserError
from hfseg.models import (
    HfsegFCNForSemanticSegmentation,
    HfsegSegformerForSemanticSegmentation,
    has_lora,
    reload,
    saved_by_own_names,
)
from hfseg.training.callbacks import ScheduledUnfreezing, TrainingStateCallback
from hfseg.training.checkpoints import PARTIAL, commit, make_partial, written_or_nothing
from hfseg.training.ema import EMA_FILE, WeightAverage
from hfseg.training.searching_trainer import SearchingTrainer
from hfseg.training.sharding import gather_weights

DIVERGED_REMEDY = (
    "Lower train.learning_rate, raise train.warmup_steps or lower train.max_grad_norm, and start again under another "
    "name. The checkpoints before this step are as they were."
)

logger = logging.getLogger(__name__)


class ResumableTrainer(SearchingTrainer):
    """The stock Trainer with checkpoints that hold all of a training's state, logs included.

    A checkpoint that does not fit the model entirely is an error; stock only warns.

    Attributes:
        ema: decay of the average of the weights that is scored and kept in their place, see `WeightAverage`.
    """

    model: Any
    optimizer: torch.optim.Optimizer | None
    is_fsdp_enabled: bool

    def __init__(self, *trainer_arguments: Any, **more_trainer_arguments: Any) -> None:
        super().__init__(*trainer_arguments, **more_trainer_arguments)
        self.ema: float | None = None
        self._trains_segmentation = False  # whether the loss is `SegTrainer`'s
        self._average: WeightAverage | None = None  # while training
        self._resumed_from: Path | None = None
        self._writing_to: Path | None = None
        self._began: float | None = None  # while training: when, if it had never been interrupted
        self._train_confusion = torch.zeros(0, 0, dtype=torch.int64)  # since the last log, of a segmentation
        self._undefined_is_said = False  # that `metric_for_best_model` is
        self._shards_weights = self.is_fsdp_enabled  # in trainings
        self.is_fsdp_enabled = False  # outside of them, stock is to take the model as any other
        self._whole: nn.Module | None = None  # while sharded weights are trained: a copy on the CPU to gather them in

    def get_train_dataloader(self) -> Any:
        """The stock loader, whose workers get their seeds from a generator of their own.

        Stock draws them from the random state of the training, and with persistent workers only once a process: after
        a resume, dropout would differ from the next epoch on.
        """
        loader = super().get_train_dataloader()
        inner = loader.base_dataloader if isinstance(loader, DataLoaderAdapter) else loader  # accelerate wraps torch's
        inner.generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def train(self, *arguments: Any, **more_arguments: Any) -> Any:
        """The stock method, which tells this trainer of its events."""
        if self._shards_weights:
            self._begin_sharding()
        callback = TrainingStateCallback(self)
        self.add_callback(callback)
        try:
            return super().train(*arguments, **more_arguments)
        finally:
            self.remove_callback(callback)
            self.is_fsdp_enabled, self._whole = False, None

    def _begin_sharding(self) -> None:
        """Raises UserError for what would see the parts of the weights only."""
        unfreezes = any(isinstance(each, ScheduledUnfreezing) for each in self.callback_handler.callbacks)
        settings = {"optim.ema": self.ema, "model.lora": has_lora(self.model), "model.unfreeze_at": unfreezes}
        for name, value in settings.items():
            if value:
                raise UserError(
                    f"{name} does not work with FSDP, whose processes hold parts of the weights: unset it."
                )
        self.is_fsdp_enabled, self._whole = True, deepcopy(self.model).cpu()
        # accelerate asks for them, and transformers raises NotImplementedError for models of images
        self.model.get_input_embeddings = lambda: None

    def _gathered(self) -> nn.Module | None:
        """While sharded weights are trained: all of them, in a model on this process's device, to be scored."""
        if self._whole is not None:
            self._whole.to(self.args.device).eval()
            gather_weights(self.model, self._whole)
        return self._whole

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """The stock method, but no step is made after the last one, from which stock would train one more."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        is_sharded = (Path(resume_from_checkpoint) / f"{FSDP_MODEL_NAME}_0").is_dir()
        if is_sharded != self.is_fsdp_enabled:
            raise UserError(
                f"{resume_from_checkpoint} was written {'with' if is_sharded else 'without'} FSDP: go on with the "
                "accelerate config that the training was started with."
            )
        if self._has_other_names_on_disk() and Path(resume_from_checkpoint).is_dir():
            reload(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._has_other_names_on_disk():
            reload(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()
        if self._average is not None:
            self._average.load(Path(self.state.best_model_checkpoint), self.state.best_global_step)

    def _has_other_names_on_disk(self) -> bool:
        """Whether weights may have to be translated, as `from_pretrained` does and the stock Trainer does not."""
        own = isinstance(self.model, HfsegSegformerForSemanticSegmentation | HfsegFCNForSemanticSegmentation)
        is_of_transformers = isinstance(self.model, PreTrainedModel) and not own and not has_lora(self.model)
        return is_of_transformers and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The stock method; LoRA's layers are written by their own names, which transformers cannot translate."""
        with saved_by_own_names(self.model) if has_lora(self.model) else nullcontext():
            super()._save(output_dir, state_dict)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._writing_to is None else str(self._writing_to)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The stock checkpoint with our sums and averages in it, under its name only when it is complete."""
        is_finite = all(parameter.isfinite().all() for parameter in self.model.parameters())
        if self._trains_segmentation and not is_finite:
            raise UserError(
                f"The training has diverged: the weights after step {self.state.global_step} are not finite, and no "
                f"checkpoint is made of them. {DIVERGED_REMEDY}"
            )
        run_dir, name = Path(self._get_output_dir(trial)), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        partial = run_dir / PARTIAL
        if self.args.should_save:
            if trial is not None:
                run_dir.mkdir(parents=True, exist_ok=True)
            make_partial(partial)
        self.accelerator.wait_for_everyone()
        self._writing_to = partial
        try:
            with written_or_nothing(partial):
                super()._save_checkpoint(model, trial)
                self._save_sums(partial / name)
                self.accelerator.wait_for_everyone()
                self._commit(partial, run_dir, name)
        finally:
            self._writing_to = None
        self.accelerator.wait_for_everyone()

    def _commit(self, partial: Path, run_dir: Path, name: str) -> None:
        """What the stock method does with its folder, which was the partial one: the best one's, and old ones go."""
        best = f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if self.state.best_global_step and (best == name or (run_dir / best).exists()):
            self.state.best_model_checkpoint = str(run_dir / best)
        if not self.args.should_save:
            return
        if self._average is not None:
            self._average.save(partial / name)
        self.state.save_to_json(str(partial / name / "trainer_state.json"))
        commit(partial / name, run_dir / name)
        partial.rmdir()
        rotate_checkpoints(str(run_dir), self.args.save_total_limit, self.state.best_model_checkpoint)

    def _save_sums(self, folder: Path) -> None:
        """What has been added up since the last log, by this process."""
        sums = {
            "loss": self._tr_loss.item(),
            "loss_until_last_log": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "confusion": self._train_confusion.tolist(),
            "seconds": time.monotonic() - self._began if self._began is not None else 0.0,
        }
        (folder / f"sums_{self.args.process_index}.json").write_text(json.dumps(sums), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        self._resumed_from = None if checkpoint is None else Path(checkpoint)

    def _update_auto_batch_size(self, batch_size: int) -> None:
        """The stock method of `auto_find_batch_size`, which says what has become of the batch."""
        if batch_size < self._train_batch_size:
            too_large, smaller = (size // max(self.args.n_gpu, 1) for size in (self._train_batch_size, batch_size))
            logger.warning(
                "Out of memory with per_device_train_batch_size=%d: the training begins again with %d.",
                too_large, smaller,
            )  # fmt: skip
        super()._update_auto_batch_size(batch_size)

    def begin_training(self) -> None:
        """Called when stock has set everything to zero: restores what its checkpoint does not have."""
        self._train_confusion.zero_()
        self._began = time.monotonic()
        self._undefined_is_said = False
        self._average = None if self.ema is None else WeightAverage(self.model, self.ema)
        folder, self._resumed_from = self._resumed_from, None
        if folder is None:
            return
        if self._average is not None and (folder / EMA_FILE).exists():
            self._average.load(folder, self.state.global_step)
        sums_file = folder / f"sums_{self.args.process_index}.json"
        if sums_file.exists():  # not with another number of processes, nor in a checkpoint of the stock Trainer
            sums = json.loads(sums_file.read_text(encoding="utf-8"))
            self._tr_loss.fill_(sums["loss"])
            self._total_loss_scalar = sums["loss_until_last_log"]
            self._globalstep_last_logged = sums["last_logged_step"]
            self._train_confusion = torch.tensor(sums["confusion"])
            self._began -= sums.get("seconds", 0.0)  # older checkpoints have none

    def begin_epoch(self) -> None:
        """Tells hfseg's training sets the epoch. accelerate does so too, but not under several processes."""
        if isinstance(self.train_dataset, TrainSet | StreamingTrainSet):
            self.train_dataset.set_epoch(int(self.state.epoch or 0))

    def weights_changed(self) -> None:
        """Called after every optimizer step."""
        if self._average is not None:
            self._average.update(self.model)

    def end_training(self) -> None:
        """Called when the best weights are loaded, if that is wanted: the model leaves with the averaged ones."""
        self._began = None
        if self._undefined_is_said and self.state.best_metric is None:
            logger.warning(
                "metric_for_best_model=%s was undefined in every evaluation: the weights are those of the last step.",
                self.args.metric_for_best_model,
            )
        if self._average is not None:
            self._average.copy_to(self.model)
            self._average = None
        if (whole := self._gathered()) is not None:
            self.model = self.model_wrapped = self.callback_handler.model = whole
            self.optimizer = None  # of the parts

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Stock goes on with whatever fits, and trains or scores a half-initialised model."""
        if load_result.missing_keys or load_result.unexpected_keys:
            raise UserError(
                "The checkpoint does not fit the model: "
                f"{len(load_result.missing_keys)} tensors missing {load_result.missing_keys[:3]}, "
                f"{len(load_result.unexpected_keys)} unexpected {load_result.unexpected_keys[:3]}. "
                "It was written for another architecture or size."
            )
