import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset
from transformers import (
    EvalPrediction,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    TrainerCallback,
    TrainingArguments,
)

from hfseg import (
    DataConfig,
    EvalSet,
    HfsegFCNConfig,
    HfsegFCNForSemanticSegmentation,
    LabelSet,
    SegCollator,
    SegMetrics,
    SegTrainer,
    TrainSet,
    TrainTransform,
    UserError,
    load_dataset,
)
from hfseg.config import EvalConfig, TransformsConfig
from hfseg.data import eval_set
from hfseg.models import segmentation_loss
from hfseg.runs import read_history
from hfseg.training import HistoryCallback, last_whole_checkpoint
from hfseg.training.callbacks import EarlyStopping
from hfseg.training.optimizer import parameter_groups
from tests.builders import make_trainer, opinionated_model, stable_model, tiny_model, uneven_samples


def test_evaluation_is_exact_at_native_size(tmp_path: Path, labels: LabelSet) -> None:
    """Against a loop that upsamples each image's logits to its own label and counts."""
    trainer = make_trainer(tmp_path, labels)
    assert len({tuple(sample["labels"].shape) for sample in trainer.eval_dataset}) > 1  # sizes are mixed
    expected, losses, valid = SegMetrics(labels), 0.0, 0
    model = trainer.model.eval()
    for sample in trainer.eval_dataset:
        with torch.no_grad():
            logits = model(sample["pixel_values"][None]).logits
        size = tuple(sample["labels"].shape)
        upsampled = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        expected.update(upsampled.argmax(1), sample["labels"][None])
        losses += F.cross_entropy(upsampled, sample["labels"][None].long(), ignore_index=255, reduction="sum").item()
        valid += int((sample["labels"] != 255).sum())
    results = trainer.evaluate()
    assert trainer.compute_metrics.confusion.sum() == expected.confusion.sum()  # every pixel once
    assert np.abs(trainer.compute_metrics.confusion - expected.confusion).sum() <= 4  # ties of rounding
    assert results["eval_mean_iou"] == pytest.approx(expected.compute()["mean_iou"], abs=1e-4)
    assert results["eval_loss"] == pytest.approx(losses / valid, rel=1e-5)
    assert results["eval_num_pixels"] == valid
    again = trainer.evaluate()  # a second time counts from zero
    for key in ("eval_num_pixels", "eval_mean_iou", "eval_loss"):
        assert again[key] == results[key]
    assert trainer.compute_metrics.num_ignored == expected.num_ignored  # padding is not counted at all


@pytest.mark.parametrize(
    "options",
    [
        EvalConfig(mode="whole"),
        EvalConfig(mode="slide", crop=32, stride=20),
        EvalConfig(mode="slide", crop=48, stride=32, scales=(1.0, 1.25), flip=True),
        EvalConfig(flip=True),
    ],
    ids=["whole", "slide", "slide-views", "resize-flip"],
)
def test_modes_count_each_image_by_itself(tmp_path: Path, labels: LabelSet, options: EvalConfig) -> None:
    model = opinionated_model(labels)
    counted, losses = [], []
    for batch_size in (1, 3, 6):
        trainer = make_trainer(
            tmp_path, labels, model, evaluation=options, per_device_eval_batch_size=batch_size,
            compute_metrics=SegMetrics(labels, per_image=True),
        )  # fmt: skip
        results = trainer.evaluate()
        assert len(trainer.compute_metrics.per_image_confusion) == len(trainer.eval_dataset)
        counted.append(np.stack(trainer.compute_metrics.per_image_confusion))
        losses.append(results["eval_loss"])
        assert results["eval_num_pixels"] == sum((each["labels"] != 255).sum() for each in trainer.eval_dataset)
    assert (counted[0].sum((0, 1)) > 0).all()  # every class is predicted
    assert np.array_equal(counted[0], counted[1])
    assert np.array_equal(counted[0], counted[2])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_stream_of_native_images_is_scored_alike(tmp_path: Path, labels: LabelSet, batch_size: int) -> None:
    options = EvalConfig(mode="whole")
    trainer = make_trainer(
        tmp_path, labels, opinionated_model(labels), evaluation=options, per_device_eval_batch_size=batch_size
    )
    trainer.evaluate()
    expected = trainer.compute_metrics.confusion
    data, _ = load_dataset(DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 7, "size": 64}))
    stream = data["test"].to_iterable_dataset()
    trainer.evaluate(eval_set(stream, trainer.processing_class, native=True))
    assert np.array_equal(trainer.compute_metrics.confusion, expected)


def test_native_images_are_neither_resized_nor_padded(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, evaluation=EvalConfig(mode="whole"))
    (batch, *_) = trainer.get_eval_dataloader()
    assert isinstance(batch["pixel_values"], list)
    for image, size, row in zip(batch["pixel_values"], batch["sizes"], trainer.eval_dataset.rows, strict=False):
        assert tuple(image.shape[-2:]) == tuple(size.tolist())
        assert image.shape[-2:] == row.label.shape
    with torch.no_grad():
        expected = [
            segmentation_loss(trainer.model.eval()(image).logits, label[None, :height, :width]).confusion[0]
            for image, label, (height, width) in zip(
                batch["pixel_values"], batch["labels"], batch["sizes"].tolist(), strict=True
            )
        ]
    _, counts, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    assert (counts["confusion"] - torch.stack(expected)).abs().sum() == 0


def test_every_image_is_scored_whatever_training_drops(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, dataloader_drop_last=True)
    pixels = sum(sample["labels"].numel() for sample in trainer.eval_dataset)
    assert trainer.evaluate()["eval_num_pixels"] == pixels
    assert trainer.args.dataloader_drop_last


def test_evaluation_keeps_nothing_but_counts(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels)
    batch = next(iter(trainer.get_eval_dataloader()))
    loss, counts, placeholder = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    assert loss is None
    assert counts is not None
    assert placeholder is not None
    assert {name: tuple(value.shape) for name, value in counts.items()} == {"confusion": (4, 4, 3), "loss": (4, 2)}
    assert placeholder.shape == (4, 1)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (2, 4), (1, 8)])
def test_one_step_is_the_same_however_it_is_split(
    tmp_path: Path, labels: LabelSet, batch_size: int, accumulation: int
) -> None:
    """Sum over all valid pixels of the step by their number, although the parts have different numbers of them."""
    model = stable_model(labels)
    trainer = make_trainer(
        tmp_path, labels, model, max_steps=1, per_device_train_batch_size=batch_size, optim="sgd",
        gradient_accumulation_steps=accumulation, learning_rate=1.0, max_grad_norm=0.0, logging_steps=1,
        lr_scheduler_type="constant",
    )  # fmt: skip
    samples = uneven_samples(trainer)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
    target = torch.stack([sample["labels"] for sample in samples]).long()
    model.train()
    upsampled = F.interpolate(model(pixel_values).logits, size=(48, 48), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(upsampled, target, ignore_index=255)
    gradients = dict(zip(before, torch.autograd.grad(expected, list(model.parameters())), strict=True))

    trainer.get_train_dataloader = lambda: DataLoader(  # type: ignore[method-assign]
        samples, batch_size=batch_size, collate_fn=SegCollator(labels)
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, gradients[name], rtol=1e-6, atol=1e-9, msg=name)


def test_persistent_workers_do_not_score_another_set(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, dataloader_num_workers=1, dataloader_persistent_workers=True)
    trainer.evaluate()
    half = Subset(trainer.eval_dataset, range(3))
    trainer.evaluate(half)
    assert trainer.compute_metrics.confusion.sum() == sum(sample["labels"].numel() for sample in half)


def test_training_metrics_are_logged_and_written(tmp_path: Path, labels: LabelSet) -> None:
    history = tmp_path / "history.jsonl"
    trainer = make_trainer(tmp_path, labels, callbacks=[HistoryCallback(history)])
    seen = []
    original = trainer._step_loss

    def spy(outputs: Any, target: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        logits = F.interpolate(outputs["logits"], size=target.shape[-2:], mode="bilinear", align_corners=False)
        seen.append((logits.argmax(1), target))
        return original(outputs, target, num_items_in_batch)

    trainer.compute_loss_func = spy
    trainer.train()
    lines = [line for line in read_history(history) if "train_mean_iou" in line]
    assert [line["step"] for line in lines] == [2, 4]
    for line, batches in zip(lines, (seen[:2], seen[2:]), strict=True):
        expected = SegMetrics(labels)
        for predictions, references in batches:
            expected.update(predictions, references)
        assert line["train_mean_iou"] == pytest.approx(expected.compute()["mean_iou"], abs=1e-3)


def test_head_learns_faster_and_norms_do_not_decay(tmp_path: Path, labels: LabelSet) -> None:
    model = tiny_model(labels)
    groups = parameter_groups(model, TrainingArguments(tmp_path, learning_rate=1e-3, weight_decay=0.1), 10.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = {
        names[id(parameter)]: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }
    assert set(grouped) == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(grouped)
    assert grouped["segformer.encoder.block.0.0.attention.self.query.weight"] == (1e-3, 0.1)
    assert grouped["segformer.encoder.block.0.0.layer_norm_1.weight"] == (1e-3, 0.0)
    assert grouped["decode_head.linear_fuse.weight"] == (1e-2, 0.1)
    assert grouped["decode_head.batch_norm.weight"] == (1e-2, 0.0)


def test_resumed_training_is_the_uninterrupted_one(tmp_path: Path, labels: LabelSet) -> None:
    weights = []
    for folder, stops in ((tmp_path / "whole", [None]), (tmp_path / "parts", [None, 2])):
        for stop in stops:
            torch.manual_seed(5)
            trainer = make_trainer(folder, labels, save_steps=2, callbacks=[HistoryCallback(folder / "history.jsonl")])
            trainer.train(resume_from_checkpoint=None if stop is None else str(folder / f"checkpoint-{stop}"))
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    for name, value in weights[0].items():
        assert value.equal(weights[1][name]), name
    histories = [read_history(tmp_path / part / "history.jsonl") for part in ("whole", "parts")]
    times = ("runtime", "second", "seconds")
    timeless = [[{k: v for k, v in line.items() if not k.endswith(times)} for line in lines[:2]]
                for lines in histories]  # fmt: skip
    assert timeless[0] == timeless[1]


def test_a_checkpoint_that_does_not_fit_is_an_error(tmp_path: Path, labels: LabelSet) -> None:
    make_trainer(tmp_path, labels, save_steps=2, max_steps=2).train()
    other = make_trainer(tmp_path, labels, tiny_model(labels, num_encoder_blocks=4))
    del other.model.decode_head.classifier.bias
    other.model.decode_head.classifier.register_parameter("offset", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(UserError, match=r"1 tensors missing.*1 unexpected"):
        other._load_from_checkpoint(str(tmp_path / "checkpoint-2"))


def test_torn_history_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_history(path) == [{"step": 1}]


@pytest.mark.parametrize("mode", ["resize", "whole"])
def test_evaluation_scores_contours_on_request(tmp_path: Path, labels: LabelSet, mode: str) -> None:
    metrics = SegMetrics(labels, boundary=True)
    trainer = make_trainer(tmp_path, labels, evaluation=EvalConfig(mode=mode), compute_metrics=metrics)
    results = trainer.evaluate()
    expected = SegMetrics(labels, boundary=True)
    with torch.no_grad():
        for sample in trainer.eval_dataset:
            logits = trainer.model(pixel_values=sample["pixel_values"][None]).logits
            large = F.interpolate(logits, size=sample["labels"].shape, mode="bilinear")
            expected.update(large.argmax(1)[0], sample["labels"])
    for key in ("boundary_iou", "band_iou_1px", "band_iou_9px", "worst_image"):
        assert results[f"eval_{key}"] == pytest.approx(expected.compute()[key], abs=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_fcn_is_scored_fused_and_stays_as_it_is(bf16: bool, tmp_path: Path, labels: LabelSet) -> None:
    model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3))
    trainer = make_trainer(
        tmp_path, labels, model=model, max_steps=1, per_device_train_batch_size=2, bf16=bf16, use_cpu=bf16
    )
    trainer.train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    ran: list[bool] = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: ran.append(isinstance(module, torch.nn.BatchNorm2d))
    )
    scored = trainer.evaluate()["eval_loss"]
    hook.remove()
    assert ran
    assert not any(ran)
    assert norms == [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    total, valid = 0.0, 0
    with torch.no_grad():
        for sample in trainer.eval_dataset:
            logits = model.eval()(pixel_values=sample["pixel_values"][None]).logits.float()
            large = F.interpolate(logits, size=sample["labels"].shape, mode="bilinear")
            total += float(F.cross_entropy(large, sample["labels"][None].long(), ignore_index=255, reduction="sum"))
            valid += int((sample["labels"] != 255).sum())
    assert scored == pytest.approx(total / valid, rel=0.03 if bf16 else 1e-4)


class Told:
    """A user's own metric: what an evaluation is told to say, one value after another."""

    def __init__(self, values: Sequence[float | None]) -> None:
        self.values = list(values)

    def __call__(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float | None]:
        return {"score": self.values.pop(0)} if compute_result else {}


@pytest.mark.parametrize("schedule", ["linear", "reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize(
    ("values", "best_step"),
    [((None, float("nan"), None), None), ((None, 0.5, float("nan")), 2)],
    ids=["never", "once"],
)
def test_an_undefined_metric_is_never_the_best(
    tmp_path: Path,
    labels: LabelSet,
    schedule: str,
    values: Sequence[float | None],
    best_step: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor does it stop the training, or move the learning rate. Said once, and that nothing was chosen at the end."""
    caplog.set_level(logging.WARNING)
    history = tmp_path / "history.jsonl"
    trainer = make_trainer(
        tmp_path, labels, max_steps=3, logging_steps=1, eval_strategy="steps", eval_steps=1, save_steps=1,
        metric_for_best_model="score", greater_is_better=True, load_best_model_at_end=True, lr_scheduler_type=schedule,
        learning_rate=1e-3, callbacks=[EarlyStopping(1), HistoryCallback(history)], compute_metrics=Told(values),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.best_global_step == best_step
    assert trainer.state.best_metric == (None if best_step is None else 0.5)
    assert [line["eval_score"] for line in read_history(history) if "eval_score" in line] == [
        None if value is None or np.isnan(value) else value for value in values
    ]
    if schedule != "linear":
        assert {line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line} == {1e-3}
        assert trainer.lr_scheduler.last_epoch == (0 if best_step is None else 1)
    assert caplog.text.count("metric_for_best_model=score is undefined at step 1") == 1
    assert ("the weights are those of the last step" in caplog.text) == (best_step is None)
    kept = torch.load(tmp_path / f"checkpoint-{best_step or 3}" / "optimizer.pt", weights_only=True)
    assert kept["state"]


def stock_model(num_labels: int) -> SegformerForSemanticSegmentation:
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=num_labels, depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4,
            decoder_hidden_size=8,
        )
    )  # fmt: skip


def trainer_of(folder: Path, labels: LabelSet, model: Any, **parts: Any) -> SegTrainer:
    """With TrainingArguments' own defaults, as a user of transformers writes it."""
    data, _ = load_dataset(DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 7, "size": 64}))
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    transform = TrainTransform(TransformsConfig(size=48), processor.image_mean, processor.image_std)
    args = TrainingArguments(folder, max_steps=1, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False)
    return SegTrainer(
        model=model, args=args, labels=labels, train_dataset=TrainSet(data["train"], transform),
        eval_dataset=EvalSet(data["test"], processor), **parts,
    )  # fmt: skip


def test_the_arguments_of_transformers_do_as_they_are(tmp_path: Path, labels: LabelSet) -> None:
    """Without `remove_unused_columns`, collator and metrics: the user's arguments stay as they were."""
    trainer = trainer_of(tmp_path, labels, stock_model(3))
    assert trainer.train().global_step == 1
    assert 0 <= trainer.evaluate()["eval_mean_iou"] <= 1
    assert trainer.args.remove_unused_columns


@pytest.mark.parametrize(
    ("num_labels", "part", "said"),
    [
        (2, {}, "The model has 2 outputs for 3 classes"),
        (3, {"compute_metrics": SegMetrics(4)}, "compute_metrics is for the classes"),
        (3, {"compute_metrics": SegMetrics(3, ignore_index=254)}, "ignore_index=254"),
        (3, {"data_collator": SegCollator(LabelSet(["a", "b", "c"]))}, "data_collator is for the classes"),
    ],
)
def test_parts_for_other_classes_are_refused_when_the_trainer_is_made(
    tmp_path: Path, labels: LabelSet, num_labels: int, part: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        trainer_of(tmp_path, labels, stock_model(num_labels), **part)
    trainer_of(tmp_path, labels, stock_model(3), compute_metrics=SegMetrics(3))  # a number of classes has no names


def test_a_batch_of_one_in_front_of_a_batch_norm_over_one_pixel(tmp_path: Path, labels: LabelSet) -> None:
    model = MobileNetV2ForSemanticSegmentation(MobileNetV2Config(num_labels=3, depth_multiplier=0.25))
    trainer = make_trainer(tmp_path, labels, model, per_device_train_batch_size=1, use_cpu=True)
    with pytest.raises(UserError, match=r"from a batch of one image on the samples \w+\. Train with per_device"):
        trainer.train()


def test_an_evaluation_that_fails_leaves_the_last_checkpoint(pets: Path, tmp_path: Path, labels: LabelSet) -> None:
    """An image that is torn after the first checkpoint is named; with it back, the training goes on from there."""
    shutil.copytree(pets, tmp_path / "pets")
    data, _ = load_dataset(DataConfig(name="oxford_pet", root=tmp_path / "pets"))
    name = data["validation"]["name"][0]
    image = tmp_path / "pets" / "images" / f"{name}.jpg"
    content = image.read_bytes()

    class Tears(TrainerCallback):
        def on_save(self, *_: Any, **__: Any) -> None:
            image.write_bytes(content[:100])

    def trainer(*callbacks: TrainerCallback) -> SegTrainer:
        made = make_trainer(
            tmp_path / "run", labels, eval_strategy="steps", eval_steps=2, save_steps=2, callbacks=list(callbacks),
            metric_for_best_model="mean_iou", load_best_model_at_end=True,
        )  # fmt: skip
        made.eval_dataset = EvalSet(data["validation"], made.processing_class)
        return made

    with pytest.raises(UserError, match=f"image of sample '{name}' cannot be read"):
        trainer(Tears()).train()
    checkpoint = last_whole_checkpoint(tmp_path / "run")
    assert checkpoint.name == "checkpoint-2"
    image.write_bytes(content)
    again = trainer()
    again.train(resume_from_checkpoint=str(checkpoint))
    assert again.state.global_step == 4
    assert again.state.best_global_step in (2, 4)
