"""run(config): load, train, choose on validation, score on test, write everything down. Read it top to bottom."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import BaseImageProcessor, PreTrainedModel, SegformerImageProcessor, TrainingArguments, set_seed

from hfseg.config import RunConfig
from hfseg.data import EvalSet, SegCollator, TrainSet, TrainTransform, load_dataset
from hfseg.errors import UserError
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, best_constant_mean_iou
from hfseg.model_card import write_card
from hfseg.models.loading import load_model
from hfseg.predict import predict
from hfseg.provenance import Provenance
from hfseg.report import Example, plot_curves, plot_predictions
from hfseg.trainer import HistoryCallback, SegTrainer, read_history

# Defaults of `train:` where TrainingArguments' own would hide something or waste memory; a config may change them.
TRAIN_DEFAULTS: dict[str, Any] = {
    "batch_eval_metrics": True,  # counts are added batch by batch: memory does not grow with the data set
    "logging_nan_inf_filter": False,  # stock writes the running mean over a NaN loss
    "logging_steps": 50,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "metric_for_best_model": "mean_iou",
    "lr_scheduler_type": "polynomial",
    "dataloader_pin_memory": torch.cuda.is_available(),
}
NUM_EXAMPLES = 4


def run(config: RunConfig, resume: bool = False, eval_only: bool = False) -> dict[str, Any]:
    """Trains and scores one model, and writes the run's folder.

    Args:
        config: what to do.
        resume: go on from the last whole checkpoint in `config.output_dir`.
        eval_only: score the run's saved model without training, or `model.init` where there is no run yet.

    Returns:
        What `metrics.json` holds: validation as `eval_*`, test as `test_*`.

    Raises:
        UserError: something in the config, the data or the folder that the user can fix.
    """
    args = training_arguments(config)
    checkpoint = check_output_dir(config, resume, eval_only)
    set_seed(config.seed)
    data, labels = load_dataset(config.data)
    processor = SegformerImageProcessor(size={"height": config.eval_size, "width": config.eval_size})
    saved = config.output_dir / "model"
    model = load_model(config.model, labels, str(saved) if eval_only and saved.is_dir() else None)
    trainer = build_trainer(config, args, model, processor, data, labels)
    provenance = Provenance.of_this_process(config, model.num_parameters())
    if eval_only and (config.output_dir / "provenance.json").exists():
        provenance = Provenance.load(config.output_dir / "provenance.json")  # of the training
    elif trainer.is_world_process_zero():
        config.save(config.output_dir / "run_config.yaml")
    if not eval_only:
        train(trainer, config, checkpoint, provenance)
    metrics, per_class = evaluate(trainer, {"eval": data["validation"], "test": data["test"]})
    if trainer.is_world_process_zero():
        write_json(config.output_dir / "per_class.json", per_class)
        write_json(config.output_dir / "provenance.json", provenance.as_dict())
        write_json(config.output_dir / "metrics.json", metrics)
        draw_figures(config, trainer, data["validation"])
        write_card(config.output_dir)
        print_table(per_class, metrics)
    return metrics


def training_arguments(config: RunConfig) -> TrainingArguments:
    """`train:` as it stands, over our defaults.

    Raises:
        UserError: TrainingArguments refuses the combination.
    """
    fixed = {
        "output_dir": str(config.output_dir),
        "seed": config.seed,
        "label_names": ["labels"],
        "remove_unused_columns": False,  # the samples' columns are not the data set's
    }
    try:
        return TrainingArguments(**(TRAIN_DEFAULTS | config.train | fixed))
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`train:` is refused by transformers.TrainingArguments: {error}") from error


def check_output_dir(config: RunConfig, resume: bool, eval_only: bool) -> str | None:
    """Keeps one run from overwriting another; returns the checkpoint to resume from, if that is wanted.

    Raises:
        UserError: the folder holds a run already, or nothing to resume or to score.
    """
    output_dir = config.output_dir
    if eval_only and config.model.init is None and not (output_dir / "model").is_dir():
        raise UserError(
            f"There is nothing to score: {output_dir}/model does not exist. Train first or set model.init."
        )
    # `trainer_state.json` is written last: a checkpoint without it was torn by a kill
    whole = [path.parent for path in output_dir.glob("checkpoint-*/trainer_state.json")]
    if resume:
        if not whole:
            raise UserError(f"{output_dir} holds no checkpoint to resume from. Start the run without --resume.")
        return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2])))
    if not eval_only and (whole or (output_dir / "metrics.json").exists()):
        raise UserError(
            f"{output_dir} already holds a run. Continue it with --resume, score it with --eval-only, delete the "
            "folder, or give this run another `name` or `output_dir`."
        )
    return None


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
    config.output_dir.mkdir(parents=True, exist_ok=True)
    return SegTrainer(
        model=model,
        args=args,
        labels=labels,
        loss=config.loss,
        head_lr_factor=config.optim.head_lr_factor,
        train_dataset=TrainSet(data["train"], transform, config.seed),
        eval_dataset=EvalSet(data["validation"], processor),
        data_collator=SegCollator(labels),
        compute_metrics=SegMetrics(labels),
        processing_class=processor,
        callbacks=[HistoryCallback(config.output_dir / "history.jsonl")],
    )


def train(trainer: SegTrainer, config: RunConfig, checkpoint: str | None, provenance: Provenance) -> None:
    """Trains to the end, and saves the best weights and how they came about."""
    result = trainer.train(resume_from_checkpoint=checkpoint)
    provenance.train_seconds = result.metrics["train_runtime"]
    provenance.steps = trainer.state.global_step
    provenance.best_step = trainer.state.best_global_step
    save_model(trainer, config.output_dir / "model", provenance)


def save_model(trainer: SegTrainer, folder: Path, provenance: Provenance) -> None:
    """Writes weights, config and image processor: all that loading needs, and nothing private."""
    if not trainer.is_world_process_zero():
        return
    partial = folder.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.hfseg = provenance.public()
    model.save_pretrained(partial)
    trainer.processing_class.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def evaluate(
    trainer: SegTrainer, splits: dict[str, datasets.Dataset]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Scores each split once, at the labels' native size.

    Returns:
        Flat metrics with the split's prefix, and per split a row for each class.
    """
    metrics: dict[str, Any] = {}
    per_class = {}
    processor = trainer.eval_dataset.processor
    for prefix, split in splits.items():
        metrics |= trainer.evaluate(EvalSet(split, processor), metric_key_prefix=prefix)
        counts = trainer.compute_metrics
        constant, score = best_constant_mean_iou(counts.confusion.sum(1))
        metrics[f"{prefix}_constant_mean_iou"] = score
        metrics[f"{prefix}_constant_class"] = trainer.labels.names[constant]
        per_class[prefix] = counts.per_class()
    return metrics, per_class


def write_json(path: Path, value: Any) -> None:
    """Under a temporary name first, so that a file that exists is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    partial.replace(path)


def draw_figures(config: RunConfig, trainer: SegTrainer, validation: datasets.Dataset) -> None:
    """Draws the curves, and a fixed handful of validation images with truth and prediction."""
    folder = config.output_dir / "figures"
    plot_curves(read_history(config.output_dir / "history.jsonl"), folder / "curves.png")
    chosen = np.linspace(0, len(validation) - 1, min(NUM_EXAMPLES, len(validation))).astype(int)
    rows = [validation[int(index)] for index in chosen]
    predictions = predict(trainer.model, [row["image"] for row in rows], trainer.processing_class)
    examples = []
    for row, prediction in zip(rows, predictions, strict=True):
        label = np.asarray(row["label"])
        metrics = SegMetrics(trainer.labels)
        metrics.update(prediction, label)
        examples.append(Example(row["name"], row["image"], label, prediction, metrics.compute()["mean_iou"]))
    plot_predictions(examples, trainer.labels, folder / "predictions.png")


def print_table(per_class: dict[str, list[dict[str, Any]]], metrics: dict[str, Any]) -> None:
    """The result: IoU per class on both splits, and what a constant answer would have scored."""
    table = Table(title="IoU per class, at the labels' native size")
    table.add_column("class")
    for split in ("validation", "test"):
        table.add_column(split, justify="right")
    for rows in zip(per_class["eval"], per_class["test"], strict=True):
        table.add_row(rows[0]["name"], *("-" if row["iou"] is None else f"{row['iou']:.4f}" for row in rows))
    table.add_section()
    table.add_row("mean IoU", *(f"{metrics[f'{prefix}_mean_iou']:.4f}" for prefix in per_class), style="bold")
    table.add_row("pixel accuracy", *(f"{metrics[f'{prefix}_pixel_accuracy']:.4f}" for prefix in per_class))
    constant = metrics["test_constant_class"]
    table.add_row(
        f"mean IoU of {constant!r} everywhere",
        *(f"{metrics[f'{prefix}_constant_mean_iou']:.4f}" for prefix in per_class),
        style="dim",
    )
    Console().print(table)
