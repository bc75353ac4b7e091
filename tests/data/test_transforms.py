from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import SegformerImageProcessor, TrainingArguments

from hfseg import (
    DataConfig,
    HfsegSegformerConfig,
    HfsegSegformerForSemanticSegmentation,
    LabelSet,
    SegCollator,
    SegTrainer,
    TrainSet,
    TrainTransform,
    load_dataset,
)
from hfseg.config import TransformsConfig
from hfseg.config.sections import FCN_TRANSFORMS
from hfseg.data import normalise
from hfseg.data.transforms import YIQ, crop_image, distort, draw_colours

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEOMETRY: dict[str, Any] = {"cat_max_ratio": None, "photometric": False}


def coded(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """An image whose colour says where a pixel is, and labels that say the same."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return Image.fromarray(image), (rows // 16 * 16 + columns // 16).astype(np.int32)


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_labels_move_together(flip: bool) -> None:
    image, label = coded(200, 240)
    config = TransformsConfig(size=96, scale=(0.3, 2.0), flip=flip, photometric=False)
    for seed in range(20):
        pixels, target = TrainTransform(config, MEAN, STD, ignore_index=999)(image, label, np.random.default_rng(seed))
        colours, target = pixels.numpy().transpose(1, 2, 0).astype(int), target.numpy()
        rows, columns = colours[..., 0], colours[..., 1]
        valid = target != 999
        # away from the borders between label cells, the two must agree to the cell
        inner = valid & (np.abs(rows % 16 - 7.5) < 4) & (np.abs(columns % 16 - 7.5) < 4)
        assert inner.any()
        expected = rows // 16 * 16 + columns // 16
        assert np.array_equal(target[inner], expected[inner])


def test_small_images_are_padded_with_mean_and_ignore() -> None:
    image, label = coded(40, 60)
    config = TransformsConfig(size=64, scale=(0.5, 0.5), flip=False)
    pixels, target = TrainTransform(config, MEAN, STD)(image, label.astype(np.uint8), np.random.default_rng(0))
    assert pixels.shape == (3, 64, 64)
    assert target.shape == (64, 64)
    assert (target[32:] == 255).all()
    assert (target[:32, :48] != 255).all()
    assert pixels[:, 40, 40].tolist() == pixels[:, 20, 60].tolist() == [round(255 * mean) for mean in MEAN]


def test_crops_avoid_one_class_filling_them() -> None:
    label = np.zeros((100, 400), dtype=np.uint8)
    label[:, 300:] = 1  # two crops of 100 in three see class 0 only
    image = Image.fromarray(np.zeros((100, 400, 3), dtype=np.uint8))
    shares = {}
    for ratio in (None, 0.75):
        transform = TrainTransform(TransformsConfig(size=100, scale=None, cat_max_ratio=ratio), MEAN, STD)
        targets = [transform(image, label, np.random.default_rng(seed))[1] for seed in range(200)]
        shares[ratio] = np.mean([(target == 1).any() for target in targets])
    assert shares[None] < 0.45
    assert shares[0.75] > 0.75


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_ignored_pixels_do_not_count_as_a_class(dtype: type) -> None:
    label = np.ones((64, 256), dtype)
    label[:32, :128], label[:32, 128:] = 255, 0  # crops on the left have one class only, whatever 255 is
    transform = TrainTransform(TransformsConfig(size=64, scale=None), MEAN, STD)
    lefts = [transform.draw(label, np.random.default_rng(seed)).crop.left for seed in range(50)]
    assert np.mean(np.array(lefts) > 80) > 0.9


def test_switched_off_is_a_plain_crop() -> None:
    image, label = coded(96, 96)
    config = TransformsConfig(size=96, scale=None, cat_max_ratio=None, flip=False, photometric=False)
    pixels, target = TrainTransform(config, MEAN, STD)(image, label, np.random.default_rng(0))
    assert np.array_equal(pixels.numpy().transpose(1, 2, 0), np.asarray(image))
    assert np.array_equal(target.numpy(), label)


def test_every_position_is_drawn_alike() -> None:
    transform = TrainTransform(TransformsConfig(size=64, scale=None, **GEOMETRY), MEAN, STD)
    crops = [transform.draw(np.zeros((64, 73), np.uint8), np.random.default_rng(seed)).crop for seed in range(2000)]
    counts = np.bincount([crop.left for crop in crops], minlength=10)
    assert len(counts) == 10
    assert ((counts > 150) & (counts < 250)).all()


@pytest.mark.parametrize("scale", [0.11, 0.23, 0.4, 0.8, 1.7])
def test_a_crop_is_pillows_resize_of_its_box(scale: float) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (611, 809, 3), dtype=np.uint8)
    config = TransformsConfig(size=64, scale=(scale * 611 / 64,) * 2, **GEOMETRY)
    crop = TrainTransform(config, MEAN, STD).draw(np.zeros((611, 809), np.uint8), rng).crop
    assert crop.reduction == {0.11: 8, 0.23: 4, 0.4: 2}.get(scale, 1)
    assert crop.height == pytest.approx(64 / scale, rel=0.02)
    assert crop.top % crop.reduction == crop.left % crop.reduction == crop.height % crop.reduction == 0
    box = Image.fromarray(pixels).crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    expected = np.asarray(box.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    got = crop_image(pixels, pixels.shape[:2], crop).numpy().transpose(1, 2, 0)
    difference = np.abs(got - expected)
    assert difference.max() <= 2  # both round twice
    assert difference.mean() < 0.15


def test_a_reduced_image_gives_the_same_crop() -> None:
    rows, columns = np.mgrid[:803, :901]
    pixels = np.stack([rows / 4, columns / 4, (rows + columns) / 8], axis=-1).astype(np.uint8)
    config = TransformsConfig(size=64, scale=(1.5, 2.5), **GEOMETRY)
    for seed in range(5):
        crop = TrainTransform(config, MEAN, STD).draw(rows.astype(np.uint8), np.random.default_rng(seed)).crop
        assert crop.reduction >= 4
        reduced = np.asarray(Image.fromarray(pixels).reduce(crop.reduction))
        difference = crop_image(reduced, rows.shape, crop).int() - crop_image(pixels, rows.shape, crop).int()
        assert difference.abs().max() <= 2


# --- distributions against references


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance between two empirical distribution functions."""
    points = np.sort(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(each), points, side="right") / len(each) for each in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def measure_geometry(pixels: np.ndarray) -> tuple[float, ...]:
    """Of a crop of the ramp below: scale, first row, leftmost column, whether it is flipped, share of padding."""
    valid = pixels[2] > 128
    height, width = valid.any(1).sum(), valid.any(0).sum()
    rows, columns = pixels[0, :height, 0].astype(float), pixels[1, 0, :width].astype(float)
    flipped = columns[0] > columns[-1]
    step = abs(columns[-1] - columns[0]) / (width - 1)
    return 1 / step, rows[0] // 8, min(columns[0], columns[-1]) // 8, float(flipped), 1 - valid.mean()


@pytest.mark.parametrize("recipe", ["segformer", "fcn"])
def test_geometry_is_distributed_as_in_torchvision(recipe: str) -> None:
    """Random short side, random crop, flip, padding: 1,000 draws of each; a KS distance of 0.075 has p < 0.01.

    Positions are compared to 8 pixels: at the crop's edge torchvision still sees the neighbours, ours do not.
    """
    shape, num = (120, 160), 1000
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ramp = np.stack([rows, columns, np.full(shape, 255)], axis=-1).astype(np.uint8)
    label = np.zeros(shape, np.uint8)
    if recipe == "fcn":  # the reference's 520 and 480, at a tenth of their size
        options, short_sides = FCN_TRANSFORMS | {"size": 48}, (26, 104)
    else:
        options, short_sides = GEOMETRY | {"size": 48}, (24, 96)
    ours = TrainTransform(TransformsConfig(**options), (0, 0, 0), STD)
    reference = v2.Compose(
        [
            v2.RandomResize(short_sides[0], short_sides[1] + 1),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(48, pad_if_needed=True, fill=0),
        ]
    )
    image = tv_tensors.Image(torch.from_numpy(ramp).permute(2, 0, 1))
    got = np.array([measure_geometry(ours(ramp, label, np.random.default_rng(i))[0].numpy()) for i in range(num)])
    # torchvision pads on all four sides and only then crops at random; ours leaves the crop at the top left
    crops = [reference(image).numpy() for _ in range(num)]
    starts = [[-int((crop[2] > 128).any(axis).argmax()) for axis in (1, 0)] for crop in crops]
    expected = np.array(
        [measure_geometry(np.roll(crop, start, (1, 2))) for crop, start in zip(crops, starts, strict=True)]
    )
    for index, name in enumerate(("scale", "top", "left", "flip", "padding")):
        assert ks_distance(got[:, index], expected[:, index]) < 0.075, name
    assert got[:, 4].max() > 0.1  # padding did occur


def distort_stepwise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """mmsegmentation's PhotoMetricDistortion, step by step in bytes, with Pillow's HSV for OpenCV's."""

    def scaled(values: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
        return (values.astype(np.float32) * factor + offset).clip(0, 255).astype(np.uint8)

    def in_hsv(values: np.ndarray, channel: int, change: Any) -> np.ndarray:
        hsv = np.array(Image.fromarray(values).convert("HSV"))
        hsv[..., channel] = change(hsv[..., channel])
        return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))

    if rng.random() < 0.5:
        pixels = scaled(pixels, 1, rng.uniform(-32, 32))
    first, contrast, factor = rng.random() < 0.5, rng.random() < 0.5, rng.uniform(0.5, 1.5)
    if first and contrast:
        pixels = scaled(pixels, factor)
    if rng.random() < 0.5:
        amount = rng.uniform(0.5, 1.5)
        pixels = in_hsv(pixels, 1, lambda s: scaled(s, amount))
    if rng.random() < 0.5:
        degrees = 2 * int(rng.integers(-18, 18))  # of 180 in OpenCV's bytes
        pixels = in_hsv(pixels, 0, lambda h: ((h.astype(int) + round(degrees * 256 / 360)) % 256).astype(np.uint8))
    return scaled(pixels, factor) if contrast and not first else pixels


def test_colours_are_distributed_as_in_mmsegmentation() -> None:
    """Mean brightness, spread, saturation and hue of a picture of muted colours, 1,500 draws of each."""
    rng, num = np.random.default_rng(0), 1500
    pixels = rng.normal((150, 110, 90), 18, (24, 24, 3)).clip(0, 255).astype(np.uint8)
    statistics: dict[str, list[tuple[float, ...]]] = {"ours": [], "reference": []}
    for _ in range(num):
        colours, matrix = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous(), draw_colours(rng)
        if matrix is not None:
            distort(colours, matrix)
        for key, each in (("ours", colours.permute(1, 2, 0).numpy()), ("reference", distort_stepwise(pixels, rng))):
            mean = each.reshape(-1, 3).mean(0)
            angle = np.arctan2(np.sqrt(3) * (mean[1] - mean[2]), 2 * mean[0] - mean[1] - mean[2])
            chroma = np.hypot(np.sqrt(3) * (mean[1] - mean[2]), 2 * mean[0] - mean[1] - mean[2])
            statistics[key].append((mean.mean(), each.std(axis=(0, 1)).mean(), chroma, angle))
    for index, name in enumerate(("brightness", "spread", "chroma", "hue")):
        ours, reference = (np.array(statistics[key])[:, index] for key in ("ours", "reference"))
        # Half of the draws leave each property alone, up to rounding: a little noise lets them be compared as one.
        blur = 0.1 * reference.std()
        distance = ks_distance(ours + rng.normal(0, blur, num), reference + rng.normal(0, blur, num))
        assert ours.std() == pytest.approx(reference.std(), rel=0.16), name
        assert distance < 0.09, name  # YIQ is not HSV; chance alone gives 0.06 in one of a hundred


def test_colour_matrices_are_the_recipes_numbers() -> None:
    """Taken apart again: each property is left alone in half of the draws and uniform over its range in the others."""
    identity = np.eye(3, 4)
    matrices = [draw_colours(np.random.default_rng(seed)) for seed in range(4000)]
    assert sum(matrix is None for matrix in matrices) == pytest.approx(4000 / 16, rel=0.2)  # four coin flips
    found: dict[str, list[float]] = {"brightness": [], "contrast": [], "saturation": [], "hue": []}
    for matrix in (identity if matrix is None else matrix for matrix in matrices):
        gain = matrix[:, :3].sum(1)
        assert np.ptp(gain) < 1e-6  # grey stays grey
        chroma = (YIQ @ matrix[:, :3] @ np.linalg.inv(YIQ))[1:, 1:] / gain[0]
        values = (matrix[0, 3] / gain[0], gain[0], np.linalg.det(chroma) ** 0.5,
                  np.degrees(np.arctan2(chroma[1, 0], chroma[0, 0])))  # fmt: skip
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-36, 36)}
    for name, (low, high) in ranges.items():
        values = np.array(found[name])
        changed = values[np.abs(values - (low + high) / 2) > 1e-6]
        assert len(changed) / 4000 == pytest.approx(0.5, abs=0.03), name
        assert ks_distance(changed, np.linspace(low, high, 4000)) < 0.045, name


def test_distortion_is_the_clipped_and_rounded_product() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 150, 7), dtype=np.uint8)  # more rows than a strip has
    matrix = np.hstack([np.eye(3) + rng.normal(0, 0.2, (3, 3)), rng.normal(0, 40, (3, 1))])
    colours = torch.from_numpy(pixels.copy())
    distort(colours, matrix)
    exact = matrix[:, :3] @ pixels.reshape(3, -1) + matrix[:, 3:]
    assert np.abs(colours.numpy().reshape(3, -1) - exact.clip(0, 255)).max() <= 0.501


def test_normalised_bytes_are_what_the_processor_makes() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    transform = TrainTransform(TransformsConfig(), MEAN, STD)
    batch = {"pixel_values": pixels, "labels": torch.zeros(2, 8, 8, dtype=torch.uint8)}
    batch["normalisation"] = torch.stack([transform.normalisation] * 2)
    processor = SegformerImageProcessor(do_resize=False, image_mean=MEAN, image_std=STD)
    expected = processor(list(pixels), return_tensors="pt")["pixel_values"]
    got = normalise(batch)
    torch.testing.assert_close(got["pixel_values"], expected, rtol=0, atol=1e-5)
    assert got["labels"].dtype == torch.int64
    assert "normalisation" not in got


# --- the same pixels, whoever makes them


@pytest.fixture(scope="module")
def train_data() -> Any:
    config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 4, "size": 64})
    return load_dataset(config)[0]["train"]


def seen(data: Any, epoch: int, seed: int, workers: int, context: str | None = None, cache: bool = False) -> Any:
    labels = LabelSet(["pet", "background", "boundary"])
    dataset = TrainSet(data, TrainTransform(TransformsConfig(size=48), MEAN, STD), seed, cache)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=workers, collate_fn=SegCollator(labels), multiprocessing_context=context,
        persistent_workers=workers > 0,
    )  # fmt: skip
    if workers:
        list(loader)  # persistent workers must notice the new epoch
    dataset.set_epoch(epoch)
    samples = [sample for batch in loader for sample in zip(batch["pixel_values"], batch["labels"], strict=True)]
    return {name: b"".join(part.numpy().tobytes() for part in sample)
            for name, sample in zip(data["name"], samples, strict=True)}  # fmt: skip


def test_pixels_depend_on_seed_epoch_and_name_alone(train_data: Any) -> None:
    alone = seen(train_data, epoch=1, seed=3, workers=0)
    assert seen(train_data, epoch=1, seed=3, workers=2) == alone
    assert seen(train_data, epoch=1, seed=3, workers=1, context="spawn", cache=True) == alone
    for epoch, seed in ((2, 3), (1, 4)):
        other = seen(train_data, epoch=epoch, seed=seed, workers=0)
        assert not set(other.values()) & set(alone.values())
    assert Counter(alone.values()).most_common(1)[0][1] == 1


def test_a_resumed_training_sees_the_pixels_it_would_have_seen(
    train_data: Any, tmp_path: Path, labels: LabelSet
) -> None:
    """Two epochs in one go without workers; the same with two, stopped in the first epoch and resumed."""
    tiny = HfsegSegformerConfig(
        depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 8, 8), num_attention_heads=(1, 1, 1, 1), decoder_hidden_size=8,
        id2label=labels.id2label, label2id=labels.label2id,
    )  # fmt: skip

    def train(workers: int, resume: bool) -> list[bytes]:
        batches = []
        args = TrainingArguments(
            tmp_path / str(workers), num_train_epochs=2, per_device_train_batch_size=4, remove_unused_columns=False,
            dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0, save_steps=2, disable_tqdm=True,
            dataloader_pin_memory=False, use_cpu=True,
        )  # fmt: skip
        model = HfsegSegformerForSemanticSegmentation(tiny)
        model.register_forward_pre_hook(
            lambda module, positional, keys: batches.append(keys["pixel_values"].numpy().tobytes()), with_kwargs=True
        )
        transform = TrainTransform(TransformsConfig(size=32), MEAN, STD)
        trainer = SegTrainer(
            model=model, args=args, labels=labels, data_collator=SegCollator(labels),
            train_dataset=TrainSet(train_data, transform),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=str(tmp_path / str(workers) / "checkpoint-2") if resume else None)
        return batches

    whole = train(workers=0, resume=False)
    assert len(set(whole)) == len(whole) > 8
    assert train(workers=2, resume=False) == whole
    assert train(workers=2, resume=True) == whole[2:]
