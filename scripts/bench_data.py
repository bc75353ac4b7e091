"""`bench.py data`: images per second of training crops, against the pipelines that most people write.

All see the same files through a DataLoader and end with a normalised float32 batch and int64 labels. The reference
does the same augmentation in torchvision v2 (without `cat_max_ratio`, which it lacks), each step on the whole image.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import SegformerImageProcessor

import hfseg
from hfseg.data import normalise

Row = dict[str, Any]
Batch = dict[str, torch.Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STREET_CLASSES = 19


def data_rows(arguments: argparse.Namespace) -> list[Row]:
    """One row for each data set and implementation."""
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = folder  # nothing stays behind
        datasets.disable_progress_bars()
        name = "synthetic_pet" if arguments.root is None else "oxford_pet"
        pets, pet_labels = hfseg.load_dataset(hfseg.DataConfig(name=name, root=arguments.root))
        train = pets["train"].select(range(min(arguments.images, len(pets["train"]))))
        street_labels = hfseg.LabelSet([str(index) for index in range(STREET_CLASSES)])
        rows = compare(f"{name} JPEG", train, pet_labels, arguments)
        return rows + compare("2048x1024 PNG", draw_streets(Path(folder), arguments.streets), street_labels, arguments)


def compare(name: str, data: datasets.Dataset, labels: hfseg.LabelSet, arguments: argparse.Namespace) -> list[Row]:
    """Passes over the data with each implementation in turn, round by round; medians and ratios to the first."""
    transform = hfseg.TrainTransform(hfseg.TransformsConfig(size=arguments.size), MEAN, STD)
    ours = hfseg.SegCollator(labels)
    pipelines: dict[str, tuple[Dataset[Any], Callable[..., Batch]]] = {
        "torchvision v2": (SeparateSteps(data, arguments.size), default_collate),
        "ColorJitter + image processor": (Tutorial(data, arguments.size), default_collate),
        "hfseg": (hfseg.TrainSet(data, transform), ours),
        "hfseg, data.cache": (hfseg.TrainSet(data, transform, cache=True), ours),
    }
    loaders = {
        key: DataLoader(samples, 8, num_workers=arguments.workers, collate_fn=collate, persistent_workers=True)
        for key, (samples, collate) in pipelines.items()
    }
    rates: dict[str, list[float]] = {key: [] for key in loaders}
    for number in range(arguments.rounds + 1):  # the first starts the workers
        for key, loader in loaders.items():
            start = time.perf_counter()
            count = sum(len(finish(batch)["labels"]) for batch in loader)
            if number:
                rates[key].append(count / (time.perf_counter() - start))
    base = rates["torchvision v2"]
    rows = []
    for key, rate in rates.items():
        ratio = statistics.median(mine / reference for mine, reference in zip(rate, base, strict=True))
        rows.append(
            {
                "data": name,
                "implementation": key,
                "workers": arguments.workers,
                "crop": arguments.size,
                "images_per_s": round(statistics.median(rate), 1),
                "speed_up": round(ratio, 2),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def finish(batch: Batch) -> Batch:
    """What the training process does: nothing, but for our bytes."""
    batch = normalise(batch)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].dtype == torch.int64
    return batch


class SeparateSteps(Dataset[Row]):
    """The same augmentation as torchvision v2 transforms, one after the other."""

    def __init__(self, data: datasets.Dataset, size: int) -> None:
        self.data = data
        jitters = ({"brightness": 32 / 255}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.1})
        self.transform = v2.Compose(
            [
                v2.RandomResize(size // 2, 2 * size + 1),
                v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Image: 124, tv_tensors.Mask: 255}),
                v2.RandomHorizontalFlip(),
                *(v2.RandomApply([v2.ColorJitter(**jitter)]) for jitter in jitters),
                v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Row:
        row = self.data[index]
        mask = tv_tensors.Mask(torch.from_numpy(np.array(row["label"])))
        image, mask = self.transform(tv_tensors.Image(v2.functional.pil_to_tensor(row["image"])), mask)
        return {"pixel_values": image.as_subclass(torch.Tensor), "labels": mask.as_subclass(torch.Tensor)}


class Tutorial(Dataset[Row]):
    """As the Hugging Face segmentation guide does: colour jitter, then the whole image squeezed to the size."""

    def __init__(self, data: datasets.Dataset, size: int) -> None:
        self.data = data
        self.jitter = v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.1)
        self.processor = SegformerImageProcessor(size={"height": size, "width": size})

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Row:
        row = self.data[index]
        inputs = self.processor(self.jitter(row["image"]), row["label"], return_tensors="pt")
        return {key: value[0] for key, value in inputs.items()}


def draw_streets(folder: Path, count: int) -> datasets.Dataset:
    """Cityscapes-size PNGs of about 2 MB: smooth shapes with a camera's grain; labels in patches."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[str]] = {"image": [], "label": [], "name": []}
    for index in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (16, 32, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((2048, 1024), Image.Resampling.BICUBIC)).astype(np.float32)
        grain = rng.normal(0, 1, (1024, 2048, 1)).astype(np.float32)
        image, label = folder / f"{index}.png", folder / f"{index}_label.png"
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(image)
        patches = Image.fromarray(rng.integers(0, STREET_CLASSES, (32, 64), dtype=np.uint8))
        patches.resize((2048, 1024), Image.Resampling.NEAREST).save(label)
        for key, value in (("image", str(image)), ("label", str(label)), ("name", str(index))):
            rows[key].append(value)
    features = {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "name": datasets.Value("string")}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).save_to_disk(folder / "streets")
    return datasets.load_from_disk(folder / "streets")  # on the disk, as a real one, and its decoded copy beside it
