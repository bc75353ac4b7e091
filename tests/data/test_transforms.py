from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from hfseg import DataConfig, LabelSet, SegCollator, TrainSet, TrainTransform, load_dataset
from hfseg.config import TransformsConfig
from hfseg.data.transforms import photometric_matrix

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def coded(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """An image whose colour says where a pixel is, and labels that say the same."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return Image.fromarray(image), (rows // 16 * 16 + columns // 16).astype(np.int32)


def undo(pixels: np.ndarray) -> np.ndarray:
    return (pixels.transpose(1, 2, 0) * STD + MEAN) * 255


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_labels_move_together(flip: bool) -> None:
    image, label = coded(200, 240)
    config = TransformsConfig(size=96, scale=(0.8, 2.0), flip=flip, photometric=False)
    for seed in range(20):
        pixels, target = TrainTransform(config, MEAN, STD, ignore_index=999)(image, label, np.random.default_rng(seed))
        colours, target = undo(pixels.numpy()), target.numpy()
        rows, columns = colours[..., 0], colours[..., 1]
        valid = target != 999
        # away from the borders between label cells, the two must agree to the cell
        inner = valid & (np.abs(rows % 16 - 7.5) < 4) & (np.abs(columns % 16 - 7.5) < 4)
        assert inner.any()
        expected = rows // 16 * 16 + columns // 16
        assert np.array_equal(target[inner], expected[inner].astype(int))


def test_small_images_are_padded_with_mean_and_ignore() -> None:
    image, label = coded(40, 60)
    config = TransformsConfig(size=64, scale=(0.5, 0.5), flip=False)
    pixels, target = TrainTransform(config, MEAN, STD)(image, label, np.random.default_rng(0))
    assert pixels.shape == (3, 64, 64)
    assert target.shape == (64, 64)
    assert (target[32:] == 255).all()
    assert (target[:32, :48] != 255).all()
    assert (pixels[:, 32:] == 0).all()


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


def test_switched_off_is_a_plain_crop() -> None:
    image, label = coded(96, 96)
    config = TransformsConfig(size=96, scale=None, cat_max_ratio=None, flip=False, photometric=False)
    pixels, target = TrainTransform(config, MEAN, STD)(image, label, np.random.default_rng(0))
    np.testing.assert_allclose(undo(pixels.numpy()), np.asarray(image), atol=1e-3)
    assert np.array_equal(target.numpy(), label)


def test_photometric_distortion_keeps_grey_grey_and_has_its_probabilities() -> None:
    matrices = [photometric_matrix(np.random.default_rng(seed)) for seed in range(2000)]
    untouched = sum(np.allclose(matrix, np.eye(3)) and not offset.any() for matrix, offset in matrices)
    assert abs(untouched / 2000 - 1 / 16) < 0.02  # four coin flips
    for matrix, offset in matrices[:100]:
        grey = matrix @ np.full(3, 100.0) + offset
        assert np.ptp(grey) < 0.5  # saturation and hue leave grey alone
        assert 50 - 48 <= grey.mean() <= 150 + 48


@pytest.fixture(scope="module")
def train_data() -> object:
    config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 4, "size": 64})
    return load_dataset(config)[0]["train"]


def seen(data: object, epoch: int, seed: int, workers: int, context: str | None = None) -> dict[str, bytes]:
    labels = LabelSet(["pet", "background", "boundary"])
    dataset = TrainSet(data, TrainTransform(TransformsConfig(size=48), MEAN, STD), seed)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=workers, collate_fn=SegCollator(labels), multiprocessing_context=context,
        persistent_workers=workers > 0,
    )  # fmt: skip
    if workers:
        list(loader)  # persistent workers must notice the new epoch
    dataset.set_epoch(epoch)
    batches = [pixels for batch in loader for pixels in batch["pixel_values"]]
    return {name: pixels.numpy().tobytes() for name, pixels in zip(data["name"], batches, strict=True)}  # type: ignore[index]


def test_pixels_depend_on_seed_epoch_and_name_alone(train_data: object) -> None:
    alone = seen(train_data, epoch=1, seed=3, workers=0)
    assert seen(train_data, epoch=1, seed=3, workers=2) == alone
    assert seen(train_data, epoch=1, seed=3, workers=1, context="spawn") == alone
    for epoch, seed in ((2, 3), (1, 4)):
        other = seen(train_data, epoch=epoch, seed=seed, workers=0)
        assert not set(other.values()) & set(alone.values())
    assert Counter(alone.values()).most_common(1)[0][1] == 1
