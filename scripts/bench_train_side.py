"""One of the two trainings that `bench.py train` compares, in a process of its own; see `bench_train`."""

import json
import sys
import time
from typing import Any

import datasets
import numpy as np
import torch
from bench_stock import example_metrics, stock_model
from bench_train import MARK
from PIL import Image
from torch.utils.data import Dataset
from transformers import (
    SegformerImageProcessor,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

import hfseg

Row = dict[str, Any]


def tell(kind: str, row: Row | None = None) -> None:
    print(MARK + json.dumps({"kind": kind, "row": row}), flush=True)


class Turns(TrainerCallback):
    """Trains in turns that the parent gives on stdin, and keeps the clock that runs in them only."""

    def __init__(self, slice_seconds: float, limit_seconds: float) -> None:
        self.slice_seconds, self.limit_seconds = slice_seconds, limit_seconds
        self.before, self.started = 0.0, 0.0

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def wait(self) -> None:
        """Until the parent says `go`; a parent that has gone ends the child too."""
        if not sys.stdin.readline():
            raise SystemExit(1)
        self.started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        tell("ready")
        self.wait()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if time.perf_counter() - self.started >= self.slice_seconds:
            self.before = self.seconds()
            tell("pause")
            self.wait()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.seconds() >= self.limit_seconds:
            control.should_training_stop = control.should_evaluate = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        score = round(float(metrics["eval_mean_iou"]), 4)
        tell("validation", {"seconds": round(self.seconds(), 1), "step": state.global_step, "mean_iou": score})


def child(side: str, settings: Row) -> None:
    """One training."""
    datasets.disable_progress_bars()
    data, labels = hfseg.load_dataset(hfseg.DataConfig(name=settings["data"], root=settings["root"] or None))
    processor = SegformerImageProcessor()
    config = hfseg.TransformsConfig(size=settings["size"], scale=(0.75, 2.0))
    transform = hfseg.TrainTransform(config, processor.image_mean, processor.image_std, labels.ignore_index)
    train_set = hfseg.TrainSet(data["train"], transform, settings["seed"], cache=True)
    validation = data["validation"].select(range(min(settings["eval_images"], len(data["validation"]))))
    torch.manual_seed(settings["seed"])
    model = hfseg.HfsegSegformerForSemanticSegmentation(hfseg.HfsegSegformerConfig.from_size("b0", labels))
    args = training_arguments(settings)
    args.batch_eval_metrics = side == "hfseg"
    common = {
        "args": args,
        "eval_dataset": ResizedValidation(validation, processor, settings["eval_size"]),
        "callbacks": [Turns(settings["slice"], 60 * settings["minutes"])],
    }
    trainer = (
        hfseg.SegTrainer(
            model=model, labels=labels, train_dataset=train_set, data_collator=hfseg.SegCollator(labels), **common
        )
        if side == "hfseg"
        else Trainer(
            model=stock_model(model),
            train_dataset=FloatSamples(train_set),
            compute_metrics=example_metrics(labels.num_labels),
            **common,
        )
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    tell("done")


def training_arguments(settings: Row) -> TrainingArguments:
    return TrainingArguments(
        settings["output_dir"],
        seed=settings["seed"],
        max_steps=settings["steps"],
        eval_strategy="steps",
        eval_steps=settings["eval_steps"],
        save_strategy="no",
        logging_strategy="no",
        per_device_train_batch_size=settings["batch"],
        per_device_eval_batch_size=settings["batch"],
        learning_rate=settings["learning_rate"],
        weight_decay=0.05,
        warmup_steps=settings["warmup_steps"],
        lr_scheduler_type="polynomial",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )


class FloatSamples(Dataset[Row]):
    """The samples of a TrainSet as a stock model takes them: normalised float32 images, int64 labels."""

    def __init__(self, samples: hfseg.TrainSet) -> None:
        self.samples = samples

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate."""
        self.samples.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Row:
        sample = self.samples[index]
        mean, std = sample["normalisation"][..., None, None]
        return {"pixel_values": (sample["pixel_values"] - mean) / std, "labels": sample["labels"].long()}


class ResizedValidation(Dataset[Row]):
    """Validation images and labels at one size, made once and kept in the memory."""

    def __init__(self, data: datasets.Dataset, processor: SegformerImageProcessor, size: int) -> None:
        self.samples = []
        for row in data:
            image = processor(row["image"], size={"height": size, "width": size}, return_tensors="pt")
            labels = np.array(row["label"].resize((size, size), Image.Resampling.NEAREST))
            self.samples.append(
                {
                    "pixel_values": image["pixel_values"][0],
                    "labels": torch.from_numpy(labels).long(),
                    "name": row["name"],
                }
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Row:
        return self.samples[index]


if __name__ == "__main__":
    try:
        child(sys.argv[1], json.loads(sys.argv[2]))
    except hfseg.UserError as error:
        raise SystemExit(str(error)) from error
