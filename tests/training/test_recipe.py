"""Divergence, averaged weights, layer-wise learning rates, early stopping, void batches: through the Trainer."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import SegformerForSemanticSegmentation, Trainer, TrainerCallback, TrainingArguments

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, LabelSet, SegCollator, SegTrainer, UserError
from hfseg.config import ModelConfig
from hfseg.config.sections import FreezeStages
from hfseg.models import HfsegSegformerForSemanticSegmentation, freeze_encoder
from hfseg.training import ScheduledUnfreezing, find_damage
from hfseg.training.callbacks import EarlyStopping
from hfseg.training.optimizer import encoder_layers, parameter_groups
from hfseg.training.sync_batch_norm import synchronise_batch_norms
from tests.builders import make_trainer, stable_model, tiny_model, uneven_samples


class Spoil(TrainerCallback):
    """Makes a weight NaN, before a step's forward pass or after its optimizer step."""

    def __init__(self, step: int, event: str) -> None:
        self.step = step
        setattr(self, event, self._spoil)

    def _spoil(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            with torch.no_grad():
                model.decode_head.classifier.bias[0] = torch.nan


def test_a_diverged_loss_stops_at_once(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, max_steps=6, save_steps=2, callbacks=[Spoil(4, "on_step_begin")])
    steps = []
    original = trainer.training_step
    trainer.training_step = lambda model, inputs, items: (  # type: ignore[method-assign]
        steps.append(inputs["names"]) or original(model, inputs, items)
    )
    with pytest.raises(UserError, match="the loss of step 5 is nan on the samples") as error:
        trainer.train()
    assert len(steps) == 5
    assert all(name in str(error.value) for name in steps[-1])
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == ["checkpoint-2", "checkpoint-4"]
    assert find_damage(tmp_path / "checkpoint-4") is None
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "checkpoint-4/model.safetensors").values())


def test_no_checkpoint_of_weights_that_are_not_finite(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, save_steps=2, callbacks=[Spoil(3, "on_optimizer_step")])
    with pytest.raises(UserError, match="the weights after step 4 are not finite"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint-2"]


class Record(TrainerCallback):
    """The weights after every optimizer step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append({name: value.clone() for name, value in model.state_dict().items()})


def averaged(start: dict[str, torch.Tensor], steps: list[dict[str, torch.Tensor]], decay: float) -> dict[str, Any]:
    """The definition, in float64; buffers are the last step's."""
    average = {name: value.double() for name, value in start.items()}
    for number, weights in enumerate(steps):
        now = min(decay, (1 + number) / (10 + number))
        for name, value in weights.items():
            is_buffer = "running" in name or "num_batches" in name
            average[name] = value.double() if is_buffer else now * average[name] + (1 - now) * value.double()
    return average


def test_the_average_is_scored_kept_and_resumed(tmp_path: Path, labels: LabelSet) -> None:
    record = Record()
    model = tiny_model(labels)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"ema": 0.15, "save_steps": 2, "eval_steps": 2, "eval_strategy": "steps", "learning_rate": 1e-2}
    trainer = make_trainer(tmp_path, labels, model, callbacks=[record], **settings)
    trainer.train()
    final = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for name, expected in averaged(start, record.weights, 0.15).items():
        torch.testing.assert_close(final[name].double(), expected, rtol=1e-4, atol=1e-6, msg=name)
    saved = {name: load_file(tmp_path / "checkpoint-4" / f"{name}.safetensors") for name in ("model", "ema")}
    assert all(value.equal(final[name]) for name, value in saved["ema"].items())
    assert all(value.equal(record.weights[-1][name]) for name, value in saved["model"].items())
    assert not saved["ema"]["decode_head.classifier.weight"].equal(saved["model"]["decode_head.classifier.weight"])
    logged = next(line for line in trainer.state.log_history if line["step"] == 4 and "eval_loss" in line)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged["eval_loss"], rel=1e-6)

    resumed = make_trainer(tmp_path, labels, tiny_model(labels), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(value.equal(final[name]) for name, value in resumed.model.state_dict().items())


def test_the_best_weights_are_averaged_ones(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(
        tmp_path, labels, ema=0.5, save_steps=2, eval_steps=2, eval_strategy="steps", load_best_model_at_end=True,
        metric_for_best_model="eval_num_pixels",  # never better than the first time
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_global_step == 2
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    best = load_file(tmp_path / "checkpoint-2" / "ema.safetensors")
    assert all(value.equal(best[name]) for name, value in trainer.model.state_dict().items())


def test_deeper_layers_learn_slower(tmp_path: Path, labels: LabelSet) -> None:
    args = TrainingArguments(tmp_path, learning_rate=1.0, weight_decay=0.1)
    model = tiny_model(labels)
    rates = learning_rates(model, args)
    assert set(rates) == {name for name, _ in model.named_parameters()}
    encoder = "segformer.encoder."
    for stage, expected in enumerate((0.5**4, 0.5**3, 0.5**2, 0.5)):
        for part in (f"block.{stage}.0.", f"patch_embeddings.{stage}.", f"layer_norm.{stage}."):
            found = {rate for name, rate in rates.items() if name.startswith(encoder + part)}
            assert found == {expected}, part
    assert {rate for name, rate in rates.items() if name.startswith("decode_head")} == {10.0}


def learning_rates(model: Any, args: TrainingArguments) -> dict[str, float]:
    groups = parameter_groups(model, args, head_lr_factor=10.0, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(
        {id(parameter) for group in groups for parameter in group["params"]}
    )
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_layers_are_blocks_in_segformer_and_stages_in_fcn(tmp_path: Path, labels: LabelSet) -> None:
    assert len(encoder_layers(HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3)))) == 4
    deep = tiny_model(labels)
    deep.segformer.encoder.block[1].append(deep.segformer.encoder.block[1][0])
    assert [len(layer) for layer in encoder_layers(deep)] == [3, 2, 2, 3, 3]


def test_frozen_stages_have_no_rate(tmp_path: Path, labels: LabelSet) -> None:
    model = tiny_model(labels)
    freeze_encoder(model, 2)
    rates = learning_rates(model, TrainingArguments(tmp_path, learning_rate=1.0))
    assert set(rates) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert rates["segformer.encoder.block.2.0.mlp.dense1.weight"] == 0.25


def test_bf16_with_a_batch_without_a_label(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(
        tmp_path, labels, bf16=True, use_cpu=True, per_device_train_batch_size=1, logging_steps=1, save_strategy="no"
    )
    original, steps = trainer.data_collator, itertools.count()

    def void_first(samples: Any) -> dict[str, Any]:
        batch = original(samples)
        return batch | {"labels": torch.full_like(batch["labels"], 255)} if next(steps) == 0 else batch

    trainer.data_collator = void_first
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert trainer.accelerator.mixed_precision == "bf16"
    assert losses[0] == 0
    assert all(0 < loss < 3 for loss in losses[1:])
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_unfreezing_at_a_step(tmp_path: Path, labels: LabelSet) -> None:
    """An FCN with BatchNorm: fixed until then, and then at the rate and decay that it would always have had."""
    torch.manual_seed(0)
    model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    record = Record()
    callbacks = [ScheduledUnfreezing(ModelConfig(type="fcn", freeze=FreezeStages(stages=2), unfreeze_at=2)), record]
    trainer = make_trainer(
        tmp_path, labels, model, callbacks=callbacks, lr_scheduler_type="linear", optim="sgd", learning_rate=0.01,
        weight_decay=0.5, save_strategy="no", max_steps=4, per_device_train_batch_size=2, head_lr_factor=1.0,
    )  # fmt: skip
    trainer.train()
    fixed = [name for name in start if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    for weights in record.weights[:2]:
        assert all(weights[name].equal(start[name]) for name in fixed)  # running statistics too
        assert not weights["backbone.layer3.0.conv1.weight"].equal(start["backbone.layer3.0.conv1.weight"])
    for name in ("backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.running_mean"):
        assert not record.weights[2][name].equal(start[name]), name
    groups = {id(parameter): group for group in trainer.optimizer.param_groups for parameter in group["params"]}
    expected = {
        id(parameter): group for group in parameter_groups(model, trainer.args) for parameter in group["params"]
    }
    assert groups.keys() == expected.keys() == {id(parameter) for parameter in model.parameters()}
    assert all(groups[key]["weight_decay"] == group["weight_decay"] for key, group in expected.items())
    assert all(groups[key]["initial_lr"] == group["lr"] for key, group in expected.items())


class FitsInPairs(HfsegSegformerForSemanticSegmentation):
    """Has no memory for more than two images."""

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GB.")
        return super().forward(pixel_values, labels)


def test_unfreezing_in_a_training_that_begins_again(tmp_path: Path, labels: LabelSet) -> None:
    model = FitsInPairs(tiny_model(labels).config)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    callbacks = [ScheduledUnfreezing(ModelConfig(freeze="encoder", unfreeze_at=2))]
    trainer = make_trainer(
        tmp_path, labels, model, callbacks=callbacks, auto_find_batch_size=True, save_strategy="no", learning_rate=1e-2
    )
    trainer.train()
    assert trainer.state.train_batch_size == 2
    assert all(parameter.requires_grad for parameter in model.parameters())
    name = "segformer.encoder.block.0.0.mlp.dense1.weight"
    assert not model.state_dict()[name].equal(start[name])


def test_only_trained_batch_norms_are_synchronised() -> None:
    model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3))
    freeze_encoder(model, 2)
    before = model.state_dict()
    parameters = {id(parameter) for parameter in model.parameters()}
    synchronise_batch_norms(model)
    for name, module in model.named_modules():
        is_frozen = name.startswith(("backbone.bn1", "backbone.layer1", "backbone.layer2"))
        assert not isinstance(module, nn.BatchNorm2d) or is_frozen, name
        assert not isinstance(module, nn.SyncBatchNorm) or not is_frozen, name
    assert {id(parameter) for parameter in model.parameters()} == parameters
    assert model.state_dict().keys() == before.keys()


def test_early_stopping_and_a_resume_from_where_it_stopped(tmp_path: Path, labels: LabelSet) -> None:
    settings = {
        "max_steps": 10, "save_steps": 1, "eval_steps": 1, "eval_strategy": "steps", "load_best_model_at_end": True,
        "metric_for_best_model": "eval_num_pixels", "logging_steps": 1,
        "restore_callback_states_from_checkpoint": True,
    }  # fmt: skip
    trainer = make_trainer(tmp_path, labels, callbacks=[EarlyStopping(2)], **settings)
    trainer.train()
    assert trainer.state.global_step == 3  # the first is the best, then two that are no better
    again = make_trainer(tmp_path, labels, callbacks=[EarlyStopping(2)], **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 3
    assert all(value.equal(trainer.model.state_dict()[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_void_batches_are_no_nan(tmp_path: Path, labels: LabelSet, bf16: bool, accumulation: int) -> None:
    trainer = make_trainer(
        tmp_path, labels, bf16=bf16, use_cpu=True, logging_steps=1, max_steps=3, save_strategy="no",
        gradient_accumulation_steps=accumulation, optim="sgd", learning_rate=0.1,
    )  # fmt: skip
    seen = []
    original = trainer._step_loss

    def void(outputs: Any, target: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        loss = original(outputs, torch.full_like(target, 255), num_items_in_batch)
        seen.append(loss)
        return loss

    trainer.compute_loss_func = void
    trainer._get_num_items_in_batch = lambda batches, device: torch.tensor(0)  # type: ignore[method-assign]
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert len(seen) >= 2 * accumulation + 1
    assert all(loss.dtype == torch.float32 and loss.item() == 0 for loss in seen)
    assert all(value.equal(before[name]) for name, value in trainer.model.named_parameters())
    assert [line["loss"] for line in trainer.state.log_history if "loss" in line] == [0, 0, 0]
    json.dumps(trainer.state.log_history, allow_nan=True)


def test_bf16_trains_with_a_loss_in_fp32(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, bf16=True, use_cpu=True, logging_steps=1, max_steps=2)
    dtypes, original = [], trainer._step_loss

    def spy(outputs: Any, target: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        loss = original(outputs, target, num_items_in_batch)
        dtypes.append(loss.dtype)
        return loss

    trainer.compute_loss_func = spy
    trainer.train()
    assert dtypes == [torch.float32] * 2
    assert all(0 < line["loss"] < 10 for line in trainer.state.log_history if "loss" in line)


def test_workers_that_stay_do_not_shift_the_random_state(tmp_path: Path, labels: LabelSet) -> None:
    """Epochs of 5 steps. Only the first epoch of a process starts workers, and that must draw no random number."""
    weights = []
    for checkpoint in (None, str(tmp_path / "checkpoint-3")):
        torch.manual_seed(0)
        trainer = make_trainer(
            tmp_path, labels, max_steps=8, save_steps=3, dataloader_num_workers=1, dataloader_persistent_workers=True
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


class PlainCollator(SegCollator):
    """What stock takes: the model's own arguments."""

    def __call__(self, samples: Any) -> dict[str, Any]:
        return {key: value for key, value in super().__call__(samples).items() if key in ("pixel_values", "labels")}


@pytest.mark.parametrize("is_stock", [True, False])
def test_stock_fails_where_ours_is_exact(tmp_path: Path, labels: LabelSet, is_stock: bool) -> None:
    """Batch 8 and accumulation 4 x 2, as in `test_one_step_is_the_same_however_it_is_split`, on the same samples."""
    steps = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = stable_model(labels)
        if is_stock:
            model.save_pretrained(tmp_path / "same")
            stock = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "same", dtype=torch.float64)
            norm = stock.decode_head.batch_norm.eval()
            norm.train = lambda mode=True, norm=norm: norm  # type: ignore[method-assign]
            model = stock
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        trainer = make_trainer(
            tmp_path, labels, model, max_steps=1, per_device_train_batch_size=batch_size, optim="sgd",
            gradient_accumulation_steps=accumulation, learning_rate=1.0, max_grad_norm=0.0, logging_steps=1,
            lr_scheduler_type="constant", save_strategy="no",
        )  # fmt: skip
        samples = uneven_samples(trainer)
        for sample in samples:
            sample["labels"] = sample["labels"].long()
        collator: Any = SegCollator(labels)
        if is_stock:
            collator = PlainCollator(labels)
            trainer = Trainer(model=model, args=trainer.args, train_dataset=samples, data_collator=collator)
        loader = DataLoader(samples, batch_size=batch_size, collate_fn=collator)
        trainer.get_train_dataloader = lambda loader=loader: loader  # type: ignore[method-assign]
        trainer.train()
        assert isinstance(trainer, SegTrainer) != is_stock
        steps.append({name: before[name] - parameter.detach() for name, parameter in model.named_parameters()})
    largest = max(
        float((steps[1][name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-12))
        for name, gradient in steps[0].items()
        if gradient.abs().max() > 1e-6
    )
    assert largest > 0.05 if is_stock else largest < 1e-6
