"""A script for `transformers.Trainer` whose one word is changed: same data, same parts, same numbers."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import IterableDataset, SequentialSampler
from transformers import (
    EvalPrediction,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from hfseg import LabelSet, SegMetrics, SegTrainer, UserError
from hfseg.config import EvalConfig, LossConfig
from tests.builders import TIMES

NAMES = ("sky", "road", "car")
Sample = dict[str, Any]


def stock_model(
    num_labels: int = 3,
    kind: type[SegformerForSemanticSegmentation] = SegformerForSemanticSegmentation,
    **changes: Any,
) -> SegformerForSemanticSegmentation:
    """SegFormer of transformers in float64, without randomness in its forward pass."""
    torch.manual_seed(1)
    names = NAMES[:num_labels]
    config = SegformerConfig(
        id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)},
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8,
        drop_path_rate=0.0, classifier_dropout_prob=0.0, **changes,
    )  # fmt: skip
    return kind(config).double()


def samples(count: int = 8, num_classes: int = 3, kind: type = torch.Tensor) -> list[Sample]:
    """Images (3, 32, 32) and labels (32, 32) with ignored pixels, each image with as many."""
    generator = torch.Generator().manual_seed(2)
    made = []
    for _ in range(count):
        labels = torch.randint(num_classes, (32, 32), generator=generator)
        labels[:3] = 255
        pixels = torch.randn(3, 32, 32, generator=generator, dtype=torch.float64)
        made.append({"pixel_values": pixels, "labels": labels})
    if kind is np.ndarray:
        return [{key: value.numpy() for key, value in sample.items()} for sample in made]
    return made


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    chosen = {
        "max_steps": 3, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 3, "use_cpu": True,
        "disable_tqdm": True, "report_to": "none", "logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(str(folder), **(chosen | changes))


def losses(trainer: Trainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def log_of(trainer: Trainer) -> list[dict[str, Any]]:
    """Without the times, and the operations, of which stock counts those of a failed training too."""
    left_out = (*TIMES, "total_flos")
    return [{k: v for k, v in line.items() if not k.endswith(left_out)} for line in trainer.state.log_history]


def parameters(trainer: Trainer) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in trainer.model.parameters()])


def share_right(prediction: EvalPrediction) -> dict[str, float]:
    """The `compute_metrics` of transformers' guide to semantic segmentation, with a score of its own."""
    logits = torch.from_numpy(prediction.predictions)
    ids = F.interpolate(logits, size=prediction.label_ids.shape[-2:], mode="bilinear", align_corners=False).argmax(1)
    valid = prediction.label_ids != 255
    return {"share_right": float((ids.numpy() == prediction.label_ids)[valid].mean())}


class Rows(IterableDataset[Sample]):
    def __iter__(self) -> Iterator[Sample]:
        yield from samples()


def as_dataset() -> datasets.Dataset:
    rows = [{"image": sample["pixel_values"].tolist(), "mask": sample["labels"].tolist()} for sample in samples()]
    return datasets.Dataset.from_list(rows)


def with_transform() -> datasets.Dataset:
    data = as_dataset()

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pixels = [torch.tensor(each, dtype=torch.float64) for each in batch["image"]]
        return {"pixel_values": pixels, "labels": [torch.tensor(each) for each in batch["mask"]]}

    data.set_transform(transform)
    return data


def with_format() -> datasets.Dataset:
    data = as_dataset().rename_columns({"image": "pixel_values", "mask": "labels"})
    return data.with_format("torch", dtype=torch.float64, columns=["pixel_values"], output_all_columns=True)


@pytest.mark.parametrize(
    "data",
    [samples, lambda: samples(kind=np.ndarray), with_transform, with_format, Rows],
    ids=["list", "arrays", "set_transform", "with_format", "iterable"],
)
@pytest.mark.parametrize("collator", [None, default_data_collator], ids=["ours", "stock"])
def test_every_kind_of_data_trains_as_under_the_stock_trainer(
    tmp_path: Path, data: Callable[[], Any], collator: Any
) -> None:
    trained = []
    for kind in (Trainer, SegTrainer):
        args = arguments(tmp_path, remove_unused_columns=False)
        given = default_data_collator if kind is Trainer else collator
        trainer = kind(stock_model(), args, given, data(), data())  # by position, as Trainer takes them
        trainer.train()
        trained.append(trainer)
    stock, ours = trained
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-6)  # summed in float32
    assert (parameters(ours) - parameters(stock)).abs().max() < 1e-10
    scores = ours.evaluate()
    assert {"eval_mean_iou", "eval_iou_car", "eval_loss"} <= scores.keys()
    mine, theirs = ours.predict(data()), stock.predict(data())
    assert np.abs(mine.predictions - theirs.predictions).max() < 1e-10
    assert np.array_equal(mine.label_ids, theirs.label_ids)
    assert set(mine.metrics) == set(theirs.metrics)
    assert ours.evaluate()["eval_mean_iou"] == scores["eval_mean_iou"]  # `predict` has left the metrics alone


class Backwards(SequentialSampler):
    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source))[::-1])


class Recorder(TrainerCallback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(f"step {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.events.append("log")


def noisy_collator(batch: list[Sample]) -> Sample:
    made = default_data_collator(batch)
    return made | {"pixel_values": made["pixel_values"] * 1.5}


def own_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return (outputs.logits**2).mean() + 0 * labels.sum()


@pytest.mark.parametrize("part", ["collator", "sampler", "callbacks", "optimizer", "optimizer class", "loss"])
def test_a_part_of_the_users_passes_through_untouched(tmp_path: Path, part: str) -> None:
    trained, recorders = [], []
    for kind in (Trainer, SegTrainer):
        trainer_class, model, more = kind, stock_model(), {}
        if part == "collator":
            more["data_collator"] = noisy_collator
        elif part == "sampler":
            trainer_class = type("Own", (kind,), {"_get_train_sampler": lambda self, data=None: Backwards(samples())})
        elif part == "callbacks":
            recorders.append(Recorder())
            more["callbacks"] = [recorders[-1]]
        elif part == "optimizer":
            optimizer = torch.optim.SGD(model.decode_head.parameters(), lr=0.1, momentum=0.5)
            more["optimizers"] = optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)
        elif part == "optimizer class":
            more["optimizer_cls_and_kwargs"] = torch.optim.RMSprop, {"lr": 1e-3, "alpha": 0.9}
        else:
            more["compute_loss_func"] = own_loss
        trainer = trainer_class(model=model, args=arguments(tmp_path), train_dataset=samples(), **more)
        trainer.train()
        trained.append(trainer)
    stock, ours = trained
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-6)  # summed in float32
    assert (parameters(ours) - parameters(stock)).abs().max() < 1e-10
    assert type(ours.optimizer.optimizer) is type(stock.optimizer.optimizer)
    if part == "callbacks":
        assert recorders[0].events == recorders[1].events
        assert recorders[0].events.count("log") == 4


@pytest.mark.parametrize("by_batch", [False, True])
def test_metrics_of_the_users_get_logits_and_labels(tmp_path: Path, by_batch: bool) -> None:
    seen: list[tuple[int, ...]] = []

    def metrics(prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
        seen.append((*logits.shape, *labels.shape))
        return share_right(EvalPrediction(logits.numpy(), labels.numpy())) if compute_result else {}

    results = []
    for kind in (Trainer, SegTrainer):
        seen.clear()
        args = arguments(tmp_path, batch_eval_metrics=by_batch)
        trainer = kind(model=stock_model(), args=args, eval_dataset=samples(), compute_metrics=metrics)
        results.append((trainer.evaluate(), list(seen), trainer.predict(samples()).metrics))
    (stock, stock_seen, stock_test), (ours, ours_seen, ours_test) = results
    assert ours_seen == stock_seen
    assert ours_seen == ([(3, 3, 8, 8, 3, 32, 32)] * 2 + [(2, 3, 8, 8, 2, 32, 32)] if by_batch else ours_seen)
    for one, other in ((stock, ours), (stock_test, ours_test)):
        assert set(one) == set(other)
        scores = [key for key in one if key.endswith(("_loss", "_share_right"))]
        assert [other[key] for key in scores] == pytest.approx([one[key] for key in scores], rel=1e-12)


def test_metrics_that_preprocess_logits(tmp_path: Path) -> None:
    """The guide's other form: ids are made on the device, and `compute_metrics` gets those."""

    def to_ids(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False).argmax(1)

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        return {"shape": prediction.predictions.ndim}

    trainer = SegTrainer(
        model=stock_model(), args=arguments(tmp_path), eval_dataset=samples(), compute_metrics=metrics,
        preprocess_logits_for_metrics=to_ids,
    )  # fmt: skip
    assert trainer.evaluate()["eval_shape"] == 3


def test_arguments_are_left_untouched(tmp_path: Path) -> None:
    args = arguments(tmp_path, dataloader_drop_last=True)
    before = args.to_dict()
    trainer = SegTrainer(stock_model(), args, train_dataset=samples(), eval_dataset=samples())
    trainer.train()
    assert trainer.evaluate()["eval_num_pixels"] == 8 * 29 * 32  # every image, also those of the last short batch
    trainer.predict(samples())
    assert trainer.args is args
    assert args.to_dict() == before


class PerPixel(nn.Module):
    """A network that knows nothing of transformers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.layers(pixel_values)


def test_a_plain_module_that_returns_logits(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=20, save_strategy="steps", save_steps=10, gradient_accumulation_steps=2)
    data = samples()
    model = PerPixel(3).double()
    trainer = SegTrainer(model, args, train_dataset=data, eval_dataset=data, labels=LabelSet(NAMES))
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    found = trainer.evaluate()
    with torch.no_grad():
        logits = model(torch.stack([each["pixel_values"] for each in data]))
    expected = SegMetrics(LabelSet(NAMES))
    labels = torch.stack([each["labels"] for each in data])
    expected.update(F.interpolate(logits, size=(32, 32), mode="bilinear").argmax(1), labels)
    assert found["eval_mean_iou"] == pytest.approx(expected.compute()["mean_iou"])
    assert np.allclose(trainer.predict(data).predictions, logits.numpy())
    resumed = SegTrainer(PerPixel(3).double(), args, train_dataset=data, labels=LabelSet(NAMES))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert torch.equal(parameters(resumed), parameters(trainer))


def test_a_plain_module_without_labels_is_trained_as_stock_trains_it(tmp_path: Path) -> None:
    class Regression(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            predicted = self.slope * x
            return ((predicted - labels) ** 2).mean(), predicted

    data = [{"x": torch.tensor(float(value)), "labels": torch.tensor(2.0 * value)} for value in range(6)]
    results = []
    for kind in (Trainer, SegTrainer):
        trainer = kind(Regression(), arguments(tmp_path), train_dataset=data, eval_dataset=data)
        trainer.train()
        results.append((losses(trainer), trainer.evaluate().keys(), trainer.model.slope.item()))
    assert results[0] == results[1]


def test_samples_without_labels_are_predicted(tmp_path: Path) -> None:
    data = [{"pixel_values": sample["pixel_values"]} for sample in samples()]
    stock = Trainer(stock_model(), arguments(tmp_path)).predict(data)
    ours = SegTrainer(stock_model(), arguments(tmp_path)).predict(data)
    assert np.allclose(ours.predictions, stock.predictions, rtol=0, atol=1e-12)
    assert ours.label_ids is None


def test_one_output_is_the_binary_loss_and_two_classes(tmp_path: Path) -> None:
    """Stock divides by ignored pixels too; ours is the mean over valid ones, 29 of 32 rows."""
    data = samples(num_classes=2)
    trained = []
    for kind in (Trainer, SegTrainer):
        trainer = kind(stock_model(num_labels=1), arguments(tmp_path, max_steps=1), train_dataset=data)
        trainer.train()
        trained.append(trainer)
    stock, ours = trained
    assert losses(ours)[0] * 29 / 32 == pytest.approx(losses(stock)[0], rel=1e-6)
    assert ours.labels.names == ("background", "sky")
    model = ours.model.eval()
    found = ours.evaluate(data)
    expected = SegMetrics(2)
    for sample in data:
        with torch.no_grad():
            logit = model(sample["pixel_values"][None]).logits
        wide = F.interpolate(logit, size=(32, 32), mode="bilinear", align_corners=False)[0, 0]
        expected.update((wide.sigmoid() > 0.5).long(), sample["labels"])
    assert found["eval_mean_iou"] == pytest.approx(expected.compute()["mean_iou"])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"loss": LossConfig(dice=1.0), "compute_loss_func": own_loss}, "leave one of them out"),
        ({"evaluation": EvalConfig(flip=True), "compute_metrics": share_right}, "how SegMetrics are counted"),
    ],
)
def test_options_that_a_function_of_the_users_would_not_see(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SegTrainer(stock_model(), arguments(tmp_path), **parts)


def test_smoothing_of_the_arguments_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss=LossConfig\(label_smoothing=0.1\)"):
        SegTrainer(stock_model(), arguments(tmp_path, label_smoothing_factor=0.1))


def test_columns_that_were_removed_are_explained(tmp_path: Path) -> None:
    trainer = SegTrainer(stock_model(), arguments(tmp_path), train_dataset=with_transform())
    with pytest.raises((UserError, ValueError), match=r"remove_unused_columns|No columns in the dataset match"):
        trainer.train()


class TooLarge(SegformerForSemanticSegmentation):
    """Has memory for so many batches of more than two images, and from then on for no more than two."""

    num_fitting = 0
    weights_at_failure: dict[str, torch.Tensor] | None = None

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        if len(pixel_values) > 2:
            if self.num_fitting == 0:
                self.weights_at_failure = {name: value.clone() for name, value in self.state_dict().items()}
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GB.")
            self.num_fitting -= 1
        return super().forward(pixel_values, labels)


def test_out_of_memory_makes_the_batch_smaller_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By stock's steps; what comes out is what a training with that batch gives."""
    args = arguments(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=4)
    trained = []
    for kind in (Trainer, SegTrainer):
        trainer = kind(stock_model(kind=TooLarge), args, train_dataset=samples())
        trainer.train()
        trained.append(trainer)
    stock, ours = trained
    assert ours.state.train_batch_size == stock.state.train_batch_size == 2
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-6)
    assert (parameters(ours) - parameters(stock)).abs().max() < 1e-10
    said = re.findall(r"with per_device_train_batch_size=(\d+): the training begins again with (\d+)\.", caplog.text)
    assert (said[0][0], said[-1][1]) == ("4", "2")
    assert all(before[1] == after[0] for before, after in pairwise(said))
    alone = SegTrainer(stock_model(), arguments(tmp_path), train_dataset=samples())
    alone.train()
    assert torch.equal(parameters(ours), parameters(alone))
    assert log_of(ours) == log_of(alone)


@pytest.mark.slow
def test_after_out_of_memory_everything_is_counted_from_zero(tmp_path: Path) -> None:
    """The weights stay, as under stock; the log and the average of the weights (EMA) begin with them."""
    changes = {"optim": "sgd", "logging_steps": 2}
    args = arguments(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=4, **changes)
    trained = []
    for kind, more in ((Trainer, {}), (SegTrainer, {}), (SegTrainer, {"ema": 0.9})):
        model = stock_model(kind=TooLarge)
        model.num_fitting = 1
        trainer = kind(model, args, train_dataset=samples(), **more)
        trainer.train()
        trained.append(trainer)
    stock, ours, averaged = trained
    assert losses(ours) == pytest.approx(losses(stock), rel=1e-6)
    assert (parameters(ours) - parameters(stock)).abs().max() < 1e-10
    for trainer, more in ((ours, {}), (averaged, {"ema": 0.9})):
        model = stock_model()
        assert not torch.equal(trainer.model.weights_at_failure["decode_head.classifier.bias"],
                               model.decode_head.classifier.bias)  # fmt: skip
        model.load_state_dict(trainer.model.weights_at_failure)
        alone = SegTrainer(model, arguments(tmp_path, **changes), train_dataset=samples(), **more)
        alone.train()
        assert torch.equal(parameters(trainer), parameters(alone))
        assert log_of(trainer) == log_of(alone)


def test_a_model_that_the_trainer_makes(tmp_path: Path) -> None:
    """Anew in every training, as under stock."""
    trained = []
    for kind in (Trainer, SegTrainer):
        trainer = kind(args=arguments(tmp_path), train_dataset=samples(), model_init=lambda: stock_model())
        first = trainer.model
        for _ in range(2):
            trainer.train()
            trained.append((losses(trainer), parameters(trainer)))
        assert trainer.model is not first
    for found, weights in trained[1:]:
        assert found == pytest.approx(trained[0][0], rel=1e-6)
        assert (weights - trained[0][1]).abs().max() < 1e-10
    assert torch.equal(trained[2][1], trained[3][1])
