"""run(config): load, train, choose on validation, score on test, write everything down. Read it top to bottom."""

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
from rich.console import Console
from transformers import TrainingArguments, set_seed

from hfseg.config import RunConfig
from hfseg.console import working
from hfseg.data import SegCollator, TrainTransform, eval_set, load_dataset, train_set
from hfseg.doctor import check_classes, check_fit, check_settings, check_start, preflight
from hfseg.errors import UserError
from hfseg.files import complete_folder, remove, write_json
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, unscored
from hfseg.models import build_model, load_processor, merge_lora, store_temperature
from hfseg.publishing import EXAMPLES, discard_results, missing_pages, push_run, write_pages
from hfseg.reporting import keep_examples, print_data, print_end, showing_progress
from hfseg.runs import Provenance, peak_memory_mb, write_counts, writing_run
from hfseg.training import FinalScores, HistoryCallback, ScheduledUnfreezing, SegTrainer, early_stopping, evaluate

logger = logging.getLogger(__name__)


def run(config: RunConfig, resume: bool = False, eval_only: bool = False) -> dict[str, Any]:
    """Trains and scores one model, and writes the run's folder.

    Args:
        config: what to do.
        resume: go on from the last whole checkpoint in `config.output_dir`; where the run is scored, make what its
            end has not written.
        eval_only: score the run's saved model without training, or `model.init` where there is no run yet.

    Returns:
        What `metrics.json` holds: validation as `eval_*`, test as `test_*`.

    Raises:
        UserError: something in the config, the data or the folder that the user can fix.
    """
    args = preflight(config, resume, eval_only)
    with writing_run(config.output_dir) if args.process_index == 0 else nullcontext():
        if resume and (missing := missing_pages(config.output_dir)):
            return finish_pages(config, args, missing)
        checkpoint = check_start(config, args, resume, eval_only)
        set_seed(config.seed)
        data, labels = load_dataset(config.data)
        if args.process_index == 0:
            print_data(data, labels, args)
        trainer = build_trainer(config, args, data, labels, checkpoint, eval_only)
        with showing_progress(trainer, Console(force_jupyter=False)):  # lines, no HTML cells
            if not eval_only:
                train(trainer, config, data, checkpoint)
            scores = evaluate(trainer, config, data["validation"], data["test"])
        write_results(trainer, config, scores, data, eval_only)
        return scores.metrics


def build_trainer(
    config: RunConfig,
    args: TrainingArguments,
    data: datasets.DatasetDict,
    labels: LabelSet,
    checkpoint: str | None,
    eval_only: bool,
) -> SegTrainer:
    """Loads the model and puts the parts together.

    Raises:
        UserError: the model cannot be loaded, or does not fit the data or the settings.
    """
    saved = config.output_dir / "model"
    source = str(saved) if eval_only and saved.is_dir() else None
    check_classes(config, args, labels, checkpoint or source)
    processor = load_processor(config, source)
    model = build_model(config.model, labels, source, exact=eval_only)
    check_fit(config, args, model, processor, data, labels, eval_only)
    transform = TrainTransform(config.transforms, processor.image_mean, processor.image_std, labels.ignore_index)
    return SegTrainer(
        model=model,
        args=args,
        labels=labels,
        loss=config.loss,
        evaluation=config.eval,
        head_lr_factor=config.optim.head_lr_factor,
        layer_decay=config.optim.layer_decay,
        ema=config.optim.ema,
        train_dataset=train_set(data["train"], transform, config.seed, config.data.cache),
        eval_dataset=eval_set(data["validation"], processor, config.data.cache, config.eval.is_native),
        data_collator=SegCollator(labels),
        compute_metrics=SegMetrics(labels, boundary=config.eval.boundary),
        processing_class=processor,
        callbacks=[
            HistoryCallback(config.output_dir / "history.jsonl"),
            *early_stopping(config.optim.early_stopping, args),
            *([ScheduledUnfreezing(config.model)] if config.model.unfreeze_at is not None else []),
        ],
    )


def train(trainer: SegTrainer, config: RunConfig, data: datasets.DatasetDict, checkpoint: str | None) -> None:
    """Trains to the end, and saves the best weights and how they came about."""
    provenance = begin_provenance(trainer, config, data)
    if trainer.is_world_process_zero():
        discard_results(config.output_dir)  # of weights that are about to change
    # without the temperature that `model.init` may bring
    trainer.model.config.hfseg = provenance.public() | {"palette": trainer.labels.palette}
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        if "size mismatch" in str(error):  # torch's words for a checkpoint of another shape
            raise UserError(f"{checkpoint} does not fit the model: {str(error).splitlines()[-1].strip()}") from error
        raise
    if trainer.state.global_step == 0:
        raise UserError(
            "Not one training step was made. With train.dataloader_drop_last the training images must fill a batch: "
            f"there are fewer than train.per_device_train_batch_size={trainer.args.per_device_train_batch_size}?"
        )
    provenance.train_seconds = result.metrics["seconds"]  # stock's `train_runtime` begins at the last resume
    provenance.resumed_from = None if checkpoint is None else Path(checkpoint).name
    provenance.steps = trainer.state.global_step
    provenance.best_step = trainer.state.best_global_step
    provenance.num_trained = sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)
    provenance.peak_memory_mb = peak_memory_mb()
    if config.model.lora is not None:
        merge_lora(trainer.model)
        provenance.num_parameters = trainer.model.num_parameters()
    if trainer.is_world_process_zero():
        write_json(config.output_dir / "provenance.json", provenance.model_dump())
        save_model(trainer, config.output_dir / "model")


def begin_provenance(trainer: SegTrainer, config: RunConfig, data: datasets.DatasetDict) -> Provenance:
    """Writes the config, and what is known of the run before it trains."""
    provenance = Provenance.of_this_process(config, trainer.model.num_parameters())
    if not config.data.streaming:  # a stream has no length
        provenance.num_images = {split: len(data[split]) for split in ("train", "validation", "test")}
    if trainer.is_world_process_zero():
        config.save(config.output_dir / "run_config.yaml")
        write_json(config.output_dir / "provenance.json", provenance.model_dump())
    return provenance


def save_model(trainer: SegTrainer, folder: Path) -> None:
    """Writes weights, config and image processor: all that loading needs, and nothing private."""
    with complete_folder(folder) as partial:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(partial)
        trainer.processing_class.save_pretrained(partial)
        remove(folder)  # an earlier training's


def write_results(
    trainer: SegTrainer, config: RunConfig, scores: FinalScores, data: datasets.DatasetDict, eval_only: bool
) -> None:
    """Writes the scores, and the figures, the card and the page that are made of them; publishes a training.

    Raises:
        UserError: a split could not be scored; nothing is published then.
    """
    run_dir, model = config.output_dir, trainer.model
    if trainer.is_world_process_zero():
        if eval_only and not (run_dir / "provenance.json").exists():  # otherwise it is the training's
            begin_provenance(trainer, config, data)
        if config.eval.calibration and (run_dir / "model").is_dir():
            store_temperature(run_dir / "model", scores.temperature)
        discard_results(run_dir)
        write_counts(run_dir, scores.counts)
        write_json(run_dir / "per_class.json", scores.per_class)
        write_json(run_dir / "metrics.json", scores.metrics)
        with working("draws figures, writes card and report"):
            keep_examples(run_dir, config.eval, model, trainer.processing_class, data["validation"], trainer.labels)
            write_pages(run_dir)
        print_end(run_dir, scores.per_class, scores.metrics)
    scores.raise_failures()
    if config.hub.repo is not None and not eval_only and trainer.is_world_process_zero():
        push_run(run_dir, config.hub)


def finish_pages(config: RunConfig, args: TrainingArguments, missing: Sequence[str]) -> dict[str, Any]:
    """Makes what a run lacks that was stopped after its scores were written; trains and scores nothing.

    Args:
        config: of the run.
        args: for which process this is.
        missing: what it lacks, see `missing_pages`.

    Returns:
        What `metrics.json` holds.
    """
    run_dir = config.output_dir
    check_settings(config, args, eval_only=False)
    per_class, metrics = (
        json.loads((run_dir / name).read_text(encoding="utf-8")) for name in ("per_class.json", "metrics.json")
    )
    if args.process_index == 0:
        logger.warning("%s is scored already. What is missing is made: %s.", run_dir, ", ".join(missing))
        if set(missing) & set(EXAMPLES):
            data, labels = load_dataset(config.data)
            saved = str(run_dir / "model")
            check_classes(config, args, labels, saved)
            model = build_model(config.model, labels, saved, exact=True).to(args.device)
            processor = load_processor(config, saved)
            keep_examples(run_dir, config.eval, model, processor, data["validation"], labels)
        write_pages(run_dir)
        print_end(run_dir, per_class, metrics)
        if config.hub.repo is not None and not unscored(metrics):
            push_run(run_dir, config.hub)
    return dict(metrics)
