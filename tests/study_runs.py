"""Folders of finished runs in the formats of real ones, with predictions that are wrong as often as one says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hfseg import LabelSet, RunConfig, SegMetrics
from hfseg.metrics import best_constant_mean_iou, flat_metrics
from hfseg.publishing import missing_pages
from hfseg.runs import Example, save_examples, write_counts
from hfseg.study.plan import Job

CLASSES = ("pet", "background", "boundary")
PROVENANCE = {
    "command": "python scripts/run_seg.py", "data": "synthetic_pet", "hardware": "2 CPU cores", "versions": {},
    "num_parameters": 3_700_000, "num_trained": 3_700_000, "train_seconds": 90.0, "steps": 20, "best_step": 20,
    "peak_memory_mb": 1024.0, "num_images": {"train": 30, "validation": 40, "test": 40},
}  # fmt: skip


def study_config(folder: Path, **changes: Any) -> RunConfig:
    """Three arms of SegFormer with three seeds, and one of FCN with one seed."""
    study = {
        "seeds": [0, 1, 2],
        "pretrain": {"streets": {"data": {"name": "synthetic_cityscapes"}}},
        "arms": {
            "scratch": {"model": {"type": "segformer"}},
            "tuned": {"model": {"type": "segformer", "init": "pretrain.streets"}},
            "frozen": {"model": {"type": "segformer", "init": "pretrain.streets", "freeze": "encoder"}},
            "fcn": {"model": {"type": "fcn"}, "train": {"optim": "sgd"}, "seeds": [0]},
        },
    }
    tree = {
        "name": "a-study",
        "output_dir": str(folder / "study"),
        "data": {"name": "synthetic_pet", "note": "Drawn."},
    }
    return RunConfig.from_tree(tree | {"train": {"max_steps": 20}, "study": study | changes}, "tree")


def write_run(job: Job, accuracy: float, num_images: int = 40, boundary: bool = False, images: int = 0) -> None:
    """A finished run whose pixels are right so often; `images` is another seed for other images."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.config.save(job.folder / "run_config.yaml")
    scores: dict[str, Any] = {}
    rows, counts = {}, {"classes": np.array(CLASSES)}
    noise = np.random.default_rng([job.config.seed, len(job.name)])
    for prefix in ("eval", "test"):
        metrics = SegMetrics(len(CLASSES), boundary=boundary)
        truth = np.random.default_rng([images, len(prefix)])
        for _ in range(num_images):
            label = truth.integers(0, 3, (4, 5)).repeat(6, 0).repeat(6, 1)
            share = np.clip(accuracy + truth.normal(0, 0.05) + noise.normal(0, 0.01), 0, 1)
            wrong = noise.random(label.shape) > share
            metrics.update(np.where(wrong, (label + 1) % 3, label)[None], label[None])
        found = flat_metrics(metrics.compute(), CLASSES)
        scores |= {f"{prefix}_{key}": value for key, value in found.items()}
        constant, constant_score = best_constant_mean_iou(metrics.confusion.sum(1))
        scores |= {f"{prefix}_constant_class": CLASSES[constant], f"{prefix}_constant_mean_iou": constant_score}
        rows[prefix] = [row | {"name": name} for row, name in zip(metrics.per_class(), CLASSES, strict=True)]
        names = np.array([f"{prefix}_{number}" for number in noise.permutation(num_images)])
        order = np.array([int(name.rpartition("_")[2]) for name in names])  # each run in an order of its own
        counts |= {f"{prefix}_names": names, f"{prefix}_areas": metrics.image_areas[order]}
        counts[f"{prefix}_confusion"] = metrics.confusion
        if boundary:
            counts[f"{prefix}_boundary"] = metrics.image_boundary_areas[order]
    write_counts(job.folder, counts)
    ids = np.arange(24).reshape(4, 6) % 3
    shown = [
        Example(name, Image.new("RGB", (6, 4)), ids, (ids + 1) % 3, accuracy, title)
        for name, title in (("far", "worst"), ("near", ""), ("wide", ""))
    ]
    save_examples(shown, LabelSet(CLASSES), job.folder / "examples.npz")
    lines = [{"step": step, "seconds": 4.5 * step, "train_mean_iou": 0.3 + step / 100} for step in (5, 10, 15, 20)]
    lines.insert(2, {"step": 10, "seconds": 46.0, "eval_mean_iou": scores["eval_mean_iou"] - 0.1})
    lines.append({"step": 20, "seconds": 92.0, "eval_mean_iou": scores["eval_mean_iou"]})
    (job.folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (job.folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    (job.folder / "per_class.json").write_text(json.dumps(rows))
    (job.folder / "metrics.json").write_text(json.dumps(scores))
    for name in missing_pages(job.folder):
        (job.folder / name).parent.mkdir(exist_ok=True)
        (job.folder / name).touch()
