"""What cannot work is refused before the first step: sizes, batches of one, classes that validation has not."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation, SegformerImageProcessor

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, LabelSet, RunConfig, UserError
from hfseg.config import EvalConfig
from hfseg.doctor.fit import (
    check_evaluated_sizes,
    check_labelled,
    check_training_batches,
    image_sizes,
    smallest_batch,
)
from hfseg.models import dry_run, freeze_encoder
from hfseg.training import training_arguments
from tests.builders import tiny_model

PROCESSOR = SegformerImageProcessor(size={"height": 64, "width": 64})
SLIDE = EvalConfig(mode="slide", crop=64, stride=48)
WHOLE = EvalConfig(mode="whole")
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")})


def split(sizes: list[tuple[int, int]], index: int = 0, orientation: int = 1) -> datasets.Dataset:
    """Rows whose label maps have these widths and heights, and one class."""
    exif = Image.Exif()
    exif[0x112] = orientation
    cells = []
    for width, height in sizes:
        file = BytesIO()
        Image.fromarray(np.full((height, width), index, np.uint8)).save(file, "PNG", exif=exif)
        cells.append({"bytes": file.getvalue(), "path": None})
    names = [f"sample{number}" for number in range(len(sizes))]
    return datasets.Dataset.from_dict({"image": cells, "label": cells, "name": names}, features=FEATURES)


def config_of(folder: Path, size: int = 32, **train: Any) -> RunConfig:
    tree = {"name": "a", "output_dir": str(folder), "data": {"name": "synthetic_pet"}, "transforms": {"size": size}}
    return RunConfig.from_tree(tree | {"train": train}, "test")


def pooling_model() -> MobileNetV2ForSemanticSegmentation:
    """DeepLab's head pools the whole image to one pixel, in front of a batch norm."""
    return MobileNetV2ForSemanticSegmentation(MobileNetV2Config(num_labels=3, depth_multiplier=0.25))


def test_sizes_come_from_headers_and_upright() -> None:
    assert image_sizes(split([(20, 30), (7, 5)])) == {"sample0": (30, 20), "sample1": (5, 7)}
    assert image_sizes(split([(20, 30)], orientation=6)) == {"sample0": (20, 30)}


@pytest.mark.parametrize(
    ("options", "sizes", "wrong"),
    [
        (SLIDE, [(80, 80), (20, 20), (28, 90), (29, 40)], ["sample1 of test (20 x 20)", "sample2 of test (28 x 90)"]),
        (WHOLE, [(80, 80), (90, 28)], ["sample1 of test (90 x 28)"]),
        (EvalConfig(mode="whole", scales=(0.5, 1.0)), [(80, 80), (50, 80)], ["sample1 of test (50 x 80)"]),
        (SLIDE, [(80, 80), (40, 40)], []),  # smaller than a window, and large enough
        (WHOLE, [(29, 29)], []),
    ],
    ids=["slide", "whole", "scales", "small", "smallest"],
)
def test_images_that_the_model_does_not_take_are_named(
    labels: LabelSet, options: EvalConfig, sizes: list[tuple[int, int]], wrong: list[str]
) -> None:
    data = {"train": split([(8, 8)]), "validation": split([(80, 80)]), "test": split(sizes)}
    if not wrong:
        check_evaluated_sizes(options, tiny_model(labels), PROCESSOR, data)
        return
    with pytest.raises(UserError) as error:
        check_evaluated_sizes(options, tiny_model(labels), PROCESSOR, data)
    assert f"of the size of {', '.join(wrong)}: " in str(error.value)
    assert "write eval: {mode: resize}" in str(error.value)
    check_evaluated_sizes(EvalConfig(), tiny_model(labels), PROCESSOR, data)  # the remedy


def test_one_size_for_all_that_is_too_small_for_a_scale(labels: LabelSet) -> None:
    data = {"validation": split([(80, 80)]), "test": split([(80, 80)])}
    with pytest.raises(UserError, match=r"eval.scales=\[0.25, 1.0\]: the model does not take images of 16 x 16"):
        check_evaluated_sizes(EvalConfig(scales=(0.25, 1.0)), tiny_model(labels), PROCESSOR, data)


def test_of_a_stream_nothing_is_read(labels: LabelSet) -> None:
    stream = split([(8, 8)]).to_iterable_dataset()
    check_evaluated_sizes(SLIDE, tiny_model(labels), PROCESSOR, {"validation": stream, "test": stream})


@pytest.mark.parametrize("kind", ["pooling", "fcn"])
def test_a_dry_run_changes_nothing(kind: str) -> None:
    model = pooling_model() if kind == "pooling" else HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    problem, lonely = dry_run(model, (48, 48))
    assert problem is None
    assert lonely == (["segmentation_head.conv_pool.normalization"] if kind == "pooling" else [])
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    if kind == "pooling":
        model.train()
        with pytest.raises(ValueError, match="more than 1 value per channel"):  # what it foretells
            model(pixel_values=torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("train", "num_images", "said"),
    [
        ({"per_device_train_batch_size": 1}, 8, "train.per_device_train_batch_size=1: segmentation_head.conv_pool"),
        ({"per_device_train_batch_size": 4}, 9, "9 training images in batches of 4 leave one for the last batch"),
        ({"per_device_train_batch_size": 4}, 1, "with more training images than 1"),
        ({"per_device_train_batch_size": 4, "dataloader_drop_last": True}, 9, None),
        ({"per_device_train_batch_size": 4, "max_steps": 2}, 9, None),
        ({"per_device_train_batch_size": 4}, 8, None),
        ({"per_device_train_batch_size": 4}, None, None),
    ],
)
def test_batches_of_one(tmp_path: Path, train: dict[str, Any], num_images: int | None, said: str | None) -> None:
    config, model = config_of(tmp_path, size=48, **train), pooling_model()
    if said is None:
        check_training_batches(config, training_arguments(config), model, num_images)
        return
    with pytest.raises(UserError, match=said) as error:
        check_training_batches(config, training_arguments(config), model, num_images)
    if num_images != 1:
        found = re.search(r"_train_batch_size=(\d+) and train.dataloader_drop_last=true", str(error.value))
        assert found
        mended = config_of(tmp_path, 48, per_device_train_batch_size=int(found[1]), dataloader_drop_last=True)
        check_training_batches(mended, training_arguments(mended), model, num_images)
    freeze_encoder(model)  # which the head is not
    with pytest.raises(UserError, match="conv_pool"):
        check_training_batches(config, training_arguments(config), model, num_images)
    model.segmentation_head.requires_grad_(False)
    check_training_batches(config, training_arguments(config), model, num_images)


def test_a_crop_that_the_model_does_not_take(tmp_path: Path, labels: LabelSet) -> None:
    config = config_of(tmp_path)
    model = tiny_model(labels, sr_ratios=(16, 4, 2, 1))
    with pytest.raises(UserError, match=r"transforms\.size=32: the model does not take images of 32 x 32 pixels"):
        check_training_batches(config, training_arguments(config), model, 8)


@pytest.mark.parametrize(
    ("train", "num_images", "smallest"),
    [({}, 16, 8), ({}, 17, 1), ({}, 3, 3), ({"max_steps": 1, "gradient_accumulation_steps": 3}, 17, 1),
     ({"max_steps": 1, "gradient_accumulation_steps": 2}, 17, 8)],
)  # fmt: skip
def test_the_smallest_batch(tmp_path: Path, train: dict[str, Any], num_images: int, smallest: int) -> None:
    assert smallest_batch(training_arguments(config_of(tmp_path, **train)), num_images) == smallest


@pytest.mark.parametrize(
    ("metric", "validation", "test", "said"),
    [
        ("iou_boundary", 1, 2, "no validation image has a pixel of class 'boundary'"),
        ("eval_iou_pet", 1, 0, "no validation image has a pixel of class 'pet'"),
        ("iou_background", 1, 0, None),
        ("mean_iou", 1, 0, None),
        ("mean_iou", 255, 0, "No pixel of the validation split has a label that counts"),
        ("mean_iou", 0, 255, "No pixel of the test split has a label that counts"),
    ],
)
def test_what_labels_tell(
    tmp_path: Path, labels: LabelSet, metric: str, validation: int, test: int, said: str | None
) -> None:
    args = training_arguments(config_of(tmp_path, metric_for_best_model=metric))
    data = {"validation": split([(4, 4)] * 2, validation), "test": split([(4, 4)], test)}
    check_labelled(args, {name: rows.to_iterable_dataset() for name, rows in data.items()}, labels)
    if said is None:
        check_labelled(args, data, labels)
        return
    with pytest.raises(UserError, match=said):
        check_labelled(args, data, labels)
