"""run(config): load, train, choose on validation, score on test, write everything down. Read it top to bottom."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from rich.console import Console
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed

from hfseg.arguments import check_arguments, refused
from hfseg.callbacks import HistoryCallback, ScheduledUnfreezing, early_stopping
from hfseg.checkpoints import checkpoints, last_whole_checkpoint
from hfseg.config import RunConfig
from hfseg.console import print_table
from hfseg.counts import COUNTS, write_counts
from hfseg.data import SegCollator, TrainTransform, check_data, eval_set, load_dataset, train_set
from hfseg.errors import UserError
from hfseg.hub import check_access
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics
from hfseg.model_card import write_card
from hfseg.models.loading import load_model, load_processor
from hfseg.models.temperature import store_temperature
from hfseg.provenance import Provenance
from hfseg.publish import publish_run
from hfseg.report import write_report
from hfseg.run_figures import draw_figures
from hfseg.scores import flat_metrics
from hfseg.scoring import evaluate
from hfseg.trainer import SegTrainer


def default_workers() -> int:
    """2 to 8 processes to load data, by the cores that each of this machine's training processes has."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 2
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun and accelerate set it
    return min(max(cores - 1, 2), 8)


# Defaults of `train:` where TrainingArguments' own would hide something or waste memory; a config may change them.
TRAIN_DEFAULTS: dict[str, Any] = {
    "batch_eval_metrics": True,  # counts are added batch by batch: memory does not grow with the data set
    "logging_nan_inf_filter": False,  # stock writes the running mean over a NaN loss
    "logging_steps": 50,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting
    "metric_for_best_model": "mean_iou",
    "lr_scheduler_type": "polynomial",
    # A GPU must not wait: a sample takes a worker 2 to 4 ms, so 2 to 8 workers, as the process has cores, feed several
    # hundred a second. On a CPU, training itself takes every core and a sample is a hundredth of its step.
    "dataloader_num_workers": default_workers() if torch.cuda.is_available() else 0,
    "dataloader_pin_memory": torch.cuda.is_available(),
}
EVAL_ONLY_KEYS = ("train.", "eval.boundary", "eval.calibration")  # may differ when a run is only scored again


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
    check_streaming(config, args)
    checkpoint = check_output_dir(config, resume, eval_only)
    check_hub(config, args, eval_only)
    if resume or eval_only:
        check_same_run(config, eval_only)
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
    trainer = build_trainer(config, args, model, processor, data, labels)
    provenance = Provenance.of_this_process(config, model.num_parameters())
    if not config.data.streaming:  # a stream has no length
        provenance.num_images = {split: len(data[split]) for split in ("train", "validation", "test")}
    is_told = eval_only and (config.output_dir / "provenance.json").exists()  # by the training
    if not is_told and trainer.is_world_process_zero():
        config.save(config.output_dir / "run_config.yaml")
        write_json(config.output_dir / "provenance.json", provenance.as_dict())
    if not eval_only:
        train(trainer, config, checkpoint, provenance)
    scores = evaluate(trainer, config, data["validation"], data["test"])
    if trainer.is_world_process_zero():
        if scores.temperature is not None and saved.is_dir():
            store_temperature(saved, scores.temperature)
        write_counts(config.output_dir, scores.counts)
        write_json(config.output_dir / "per_class.json", scores.per_class)
        write_json(config.output_dir / "metrics.json", scores.metrics)
        draw_figures(config, trainer.model, trainer.processing_class, data["validation"], labels)
        write_card(config.output_dir)
        write_report(config.output_dir)
        print_table(scores.per_class, scores.metrics)
        if config.hub.repo is not None and not eval_only:
            publish_run(config.output_dir, config.hub)
    return scores.metrics


def check_hub(config: RunConfig, args: TrainingArguments, eval_only: bool) -> None:
    """Raises UserError where the run could not be published at its end: now, and not after the training."""
    if config.hub.repo is not None and not eval_only and args.process_index == 0:
        check_access(config.hub.repo, config.hub.private, config.hub.create_pr)


def check_quickly(config: RunConfig, quiet: bool) -> None:
    """A look at some of the masks, before anything takes long; prints warnings.

    Raises:
        UserError: the data has errors.
    """
    report = check_data(config.data, quick=True)
    report.raise_errors()
    if not quiet:
        report.print_findings(Console())


def training_arguments(config: RunConfig) -> TrainingArguments:
    """`train:` as it stands, over our defaults.

    Raises:
        UserError: TrainingArguments refuses the combination.
    """
    chosen = TRAIN_DEFAULTS | config.train
    # Workers that stay from epoch to epoch; without workers it would be refused.
    chosen.setdefault("dataloader_persistent_workers", chosen["dataloader_num_workers"] > 0)
    fixed = {
        "output_dir": str(config.output_dir),
        "seed": config.seed,
        "label_names": ["labels"],
        "remove_unused_columns": False,  # the samples' columns are not the data set's
        "hub_model_id": config.hub.repo,
        "hub_private_repo": config.hub.private,
        "hub_revision": config.hub.revision,
    }
    with refused("`train:` (transformers.TrainingArguments)"):
        return TrainingArguments(**(chosen | fixed))


def check_streaming(config: RunConfig, args: TrainingArguments) -> None:
    """Raises UserError for what a data set without a length cannot do."""
    if config.data.streaming and args.max_steps <= 0:
        raise UserError("data.streaming=true: a stream has no length, so train.max_steps must say how long to train.")
    if config.data.streaming and args.world_size > 1:
        raise UserError(
            f"data.streaming=true with {args.world_size} processes: an exact score needs to know which process has "
            "scored which image. Use one process, or data.streaming=false."
        )


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
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir={output_dir} cannot be written to: {error}") from error
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"output_dir={output_dir} is a file; give a folder.")
    if resume and (output_dir / "metrics.json").exists():
        raise UserError(f"{output_dir} holds a finished run: there is nothing to resume. --eval-only scores it again.")
    if resume:
        return str(last_whole_checkpoint(output_dir))
    if not eval_only and (checkpoints(output_dir) or (output_dir / "metrics.json").exists()):
        raise UserError(
            f"{output_dir} already holds a run. Continue it with --resume, score it with --eval-only, delete the "
            "folder, or give this run another `name` or `output_dir`."
        )
    return None


def check_same_run(config: RunConfig, eval_only: bool) -> None:
    """A run that is continued or scored again must be the one that was started.

    Raises:
        UserError: keys differ from the saved `run_config.yaml`; lists them.
    """
    saved = config.output_dir / "run_config.yaml"
    if not saved.exists():
        return
    before, now = (flatten(each.model_dump(mode="json")) for each in (RunConfig.load(saved), config))
    free = ("output_dir", "name", "data.root", "data.note", *(EVAL_ONLY_KEYS if eval_only else ()))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not key.startswith(free)]
    if changed:
        lines = [f"  {key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed]
        raise UserError("\n".join([f"{saved} differs from this config; restore it or start another run:", *lines]))


def check_same_classes(folder: Path, labels: LabelSet) -> None:
    """Raises UserError where the weights in a folder are those of other classes, or of another order of them."""
    try:
        saved = json.loads((folder / "config.json").read_text())["id2label"]
        then, now = [saved[str(index)] for index in range(len(saved))], list(labels.names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json is missing or torn ({error!r}): start another run.") from error
    if then != now:
        raise UserError(
            f"The weights in {folder} were trained for the classes {then}; the data has {now} now. Restore the class "
            "list, or start another run."
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


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
    made = ("metrics.json", "per_class.json", "README.md", "report.html", "examples.npz", COUNTS)
    stale = [config.output_dir / name for name in made]
    for path in stale if trainer.is_world_process_zero() else []:
        path.unlink(missing_ok=True)  # results of weights that are about to change
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
    provenance.train_seconds = result.metrics["train_runtime"]
    provenance.resumed_from = None if checkpoint is None else Path(checkpoint).name
    provenance.steps = trainer.state.global_step
    provenance.best_step = trainer.state.best_global_step
    if trainer.is_world_process_zero():
        write_json(config.output_dir / "provenance.json", provenance.as_dict())
    save_model(trainer, config.output_dir / "model")


def save_model(trainer: SegTrainer, folder: Path) -> None:
    """Writes weights, config and image processor: all that loading needs, and nothing private."""
    if not trainer.is_world_process_zero():
        return
    partial = folder.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(partial)
    trainer.processing_class.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_json(path: Path, value: Any) -> None:
    """Under a temporary name first, so that a file that exists is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    partial.replace(path)
