"""run(config): load, train, choose on validation, score on test, write everything down. Read it top to bottom."""

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
from rich.console import Console
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed

from hfseg.config import RunConfig
from hfseg.data import SegCollator, TrainTransform, eval_set, load_dataset, train_set
from hfseg.doctor import check_evaluated_sizes, check_labelled, check_run_data, check_training_batches
from hfseg.errors import UserError
from hfseg.files import complete_folder, remove, write_json
from hfseg.hub import check_access
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, flat_metrics, unscored
from hfseg.models import load_model, load_processor, store_temperature
from hfseg.publishing import EXAMPLES, discard_results, missing_pages, publish_run, write_pages
from hfseg.reporting import keep_examples, print_table
from hfseg.runs import (
    Provenance,
    check_output_dir,
    check_same_classes,
    check_same_run,
    peak_memory_mb,
    write_counts,
    writing_run,
)
from hfseg.training import (
    FinalScores,
    HistoryCallback,
    ScheduledUnfreezing,
    SegTrainer,
    check_arguments,
    check_streaming,
    check_worker_memory,
    early_stopping,
    evaluate,
    training_arguments,
)

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
    if config.study is not None:
        raise UserError("This config has a `study`, which is several runs: hfseg.run_study runs it.")
    args = training_arguments(config)
    check_streaming(config, args)
    if not config.output_dir.exists():
        check_output_dir(config, resume, eval_only)  # nothing is made where there is nothing to go on from
    check_hub(config, args, eval_only)
    check_worker_memory(config, args)
    with writing_run(config.output_dir) if args.process_index == 0 else nullcontext():
        if resume and (missing := missing_pages(config.output_dir)):
            return complete(config, args, missing)
        return run_in_folder(config, args, resume, eval_only)


def run_in_folder(config: RunConfig, args: TrainingArguments, resume: bool, eval_only: bool) -> dict[str, Any]:
    """The run itself, in a folder that no other process writes to; see `run`."""
    checkpoint = check_output_dir(config, resume, eval_only)
    if resume or eval_only:
        check_settings(config, args, eval_only)
    set_seed(config.seed)
    if not eval_only and not config.data.streaming:
        check_quickly(config, quiet=args.process_index > 0)
    data, labels = load_dataset(config.data)
    check_against_labels(config, args, labels)
    saved = config.output_dir / "model"
    source = str(saved) if eval_only and saved.is_dir() else None
    if checkpoint or source:
        check_same_classes(Path(str(checkpoint or source)), labels)
    processor = load_processor(config, source)
    model = load_model(config.model, labels, source, exact=eval_only)
    check_arguments(args, model)
    check_fit(config, args, model.to(args.device), processor, data, labels, eval_only)
    trainer = build_trainer(config, args, model, processor, data, labels)
    provenance = describe(config, model, data)
    is_told = eval_only and (config.output_dir / "provenance.json").exists()  # by the training
    if not is_told and trainer.is_world_process_zero():
        config.save(config.output_dir / "run_config.yaml")
        write_json(config.output_dir / "provenance.json", provenance.model_dump())
    if not eval_only:
        train(trainer, config, checkpoint, provenance)
    scores = evaluate(trainer, config, data["validation"], data["test"])
    if trainer.is_world_process_zero():
        write_results(trainer, config, scores, data["validation"])
    scores.raise_failures()  # nothing is published then
    if config.hub.repo is not None and not eval_only and trainer.is_world_process_zero():
        publish_run(config.output_dir, config.hub)
    return scores.metrics


def describe(config: RunConfig, model: PreTrainedModel, data: datasets.DatasetDict) -> Provenance:
    """What is known of the run before it trains."""
    provenance = Provenance.of_this_process(config, model.num_parameters())
    if not config.data.streaming:  # a stream has no length
        provenance.num_images = {split: len(data[split]) for split in ("train", "validation", "test")}
    return provenance


def write_results(trainer: SegTrainer, config: RunConfig, scores: FinalScores, validation: datasets.Dataset) -> None:
    """Writes the scores, and the figures, the card and the page that are made of them; prints the table."""
    saved = config.output_dir / "model"
    if config.eval.calibration and saved.is_dir():
        store_temperature(saved, scores.temperature)
    discard_results(config.output_dir)
    write_counts(config.output_dir, scores.counts)
    write_json(config.output_dir / "per_class.json", scores.per_class)
    write_json(config.output_dir / "metrics.json", scores.metrics)
    keep_examples(config.output_dir, config.eval, trainer.model, trainer.processing_class, validation, trainer.labels)
    write_pages(config.output_dir)
    print_table(scores.per_class, scores.metrics)


def complete(config: RunConfig, args: TrainingArguments, missing: Sequence[str]) -> dict[str, Any]:
    """Makes what a run lacks that was stopped after its scores were written; trains and scores nothing.

    Args:
        config: of the run.
        args: for which process this is.
        missing: what it lacks, see `missing_pages`.

    Returns:
        What `metrics.json` holds.
    """
    output_dir = config.output_dir
    check_settings(config, args, eval_only=False)
    per_class, metrics = (
        json.loads((output_dir / name).read_text(encoding="utf-8")) for name in ("per_class.json", "metrics.json")
    )
    if args.process_index == 0:
        logger.warning("%s is scored already. What is missing is made: %s.", output_dir, ", ".join(missing))
        if set(missing) & set(EXAMPLES):
            data, labels = load_dataset(config.data)
            saved = output_dir / "model"
            check_same_classes(saved, labels)
            model = load_model(config.model, labels, str(saved), exact=True).to(args.device)
            processor = load_processor(config, str(saved))
            keep_examples(output_dir, config.eval, model, processor, data["validation"], labels)
        write_pages(output_dir)
        print_table(per_class, metrics)
        if config.hub.repo is not None and not unscored(metrics):
            publish_run(output_dir, config.hub)
    return dict(metrics)


def check_settings(config: RunConfig, args: TrainingArguments, eval_only: bool) -> None:
    """Raises UserError where the saved run is another one, see `check_same_run`; prints what differs and may."""
    differing = check_same_run(config, eval_only)
    if differing is not None and args.process_index == 0:
        Console().print(differing, highlight=False, markup=False, soft_wrap=True)


def check_hub(config: RunConfig, args: TrainingArguments, eval_only: bool) -> None:
    """Raises UserError where the run could not be published at its end: now, and not after the training."""
    if config.hub.repo is not None and not eval_only and args.process_index == 0:
        check_access(config.hub.repo, config.hub.private, config.hub.create_pr, revision=config.hub.revision)


def check_quickly(config: RunConfig, quiet: bool) -> None:
    """A look at some of the masks, before anything takes long; prints warnings.

    Raises:
        UserError: the data has errors.
    """
    report = check_run_data(config.data, quick=True)
    report.raise_errors()
    if not quiet:
        report.print_findings(Console())


def check_against_labels(config: RunConfig, args: TrainingArguments, labels: LabelSet) -> None:
    """What only the data can tell, before any training step.

    Raises:
        UserError: class weights for another number of classes, or a best-model metric that does not exist.
    """
    weights = config.loss.class_weights
    if weights is not None and (len(weights) != labels.num_labels or not any(weights)):
        raise UserError(f"loss.class_weights={weights}: one for each of {labels.num_labels} classes, not all zero.")
    known = ["loss", *flat_metrics(SegMetrics(labels, boundary=config.eval.boundary).compute(), labels.names)]
    if args.metric_for_best_model is not None and args.metric_for_best_model.removeprefix("eval_") not in known:
        raise UserError(
            f"train.metric_for_best_model={args.metric_for_best_model!r} does not exist; "
            f"choose one of {', '.join(known)}."
        )


def check_fit(
    config: RunConfig,
    args: TrainingArguments,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: datasets.DatasetDict,
    labels: LabelSet,
    eval_only: bool,
) -> None:
    """Raises UserError where data and model would not work together, see `hfseg.doctor.preflight`."""
    check_labelled(args, data, labels)
    crop = None
    if not eval_only:
        check_training_batches(config, args, model, None if config.data.streaming else len(data["train"]))
        crop = (config.transforms.size, config.transforms.size)
    check_evaluated_sizes(config.eval, model, processor, data, crop)


def build_trainer(
    config: RunConfig,
    args: TrainingArguments,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: datasets.DatasetDict,
    labels: LabelSet,
) -> SegTrainer:
    """Puts the parts together."""
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


def train(trainer: SegTrainer, config: RunConfig, checkpoint: str | None, provenance: Provenance) -> None:
    """Trains to the end, and saves the best weights and how they came about."""
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
    if trainer.is_world_process_zero():
        write_json(config.output_dir / "provenance.json", provenance.model_dump())
    save_model(trainer, config.output_dir / "model")


def save_model(trainer: SegTrainer, folder: Path) -> None:
    """Writes weights, config and image processor: all that loading needs, and nothing private."""
    if not trainer.is_world_process_zero():
        return
    with complete_folder(folder) as partial:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(partial)
        trainer.processing_class.save_pretrained(partial)
        remove(folder)  # an earlier training's
