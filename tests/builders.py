"""What several test modules build: models, trainers, finished runs, and what the tests read them with."""

import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    PreTrainedModel,
    SegformerImageProcessor,
    TrainingArguments,
    pipeline,
)

from hfseg import (
    DataConfig,
    EvalSet,
    HfsegFCNConfig,
    HfsegFCNForSemanticSegmentation,
    HfsegSegformerConfig,
    HfsegSegformerForSemanticSegmentation,
    LabelSet,
    RunConfig,
    SegCollator,
    SegMetrics,
    SegTrainer,
    TrainSet,
    TrainTransform,
    load_dataset,
    run,
)
from hfseg.config import EvalConfig, TransformsConfig
from hfseg.metrics import best_constant_mean_iou, flat_metrics
from hfseg.publishing import missing_pages
from hfseg.publishing.card import write_card
from hfseg.runs import Example, save_examples, write_counts
from hfseg.study.plan import Job

# Before 2.0 the client goes on with a cached snapshot that is not whole, sends by LFS where Xet fails, gives up at a
# cut connection, and validates cards at the real Hub only.
OLD = int(huggingface_hub.__version__.split(".")[0]) < 2
NEWER_CLIENT = pytest.mark.skipif(OLD, reason="huggingface_hub before 2.0")
USER = "alice-of-nowhere"  # in paths of the run, and nowhere in what is published
SETTINGS = {
    "name": "tiny",
    "transforms": {"size": 32},
    "eval": {"size": 64},
    "train": {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "eval_strategy": "steps",
              "save_strategy": "steps", "eval_steps": 1, "save_steps": 1},
}  # fmt: skip
CLASSES = ("pet", "background", "boundary")
STUDY_PROVENANCE = {
    "command": "python scripts/run_seg.py", "data": "synthetic_pet", "hardware": "2 CPU cores", "versions": {},
    "num_parameters": 3_700_000, "num_trained": 3_700_000, "train_seconds": 90.0, "steps": 20, "best_step": 20,
    "peak_memory_mb": 1024.0, "num_images": {"train": 30, "validation": 40, "test": 40},
}  # fmt: skip
RUN_SETTINGS = {
    "name": "tiny",
    "transforms": {"size": 32},
    "eval": {"size": 64},
    "train": {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "eval_strategy": "steps",
              "save_strategy": "steps", "eval_steps": 2, "save_steps": 2},
}  # fmt: skip
RESUME_STEPS = 12
RESUME_SETTINGS = {
    "name": "tiny",
    "transforms": {"size": 32},
    "eval": {"size": 32},
    # 22 training images in batches of 4: two epochs and a bit. Logging and saving share no step but the last.
    "train": {"max_steps": RESUME_STEPS, "per_device_train_batch_size": 4, "logging_steps": 4,
              "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 3,
              "learning_rate": 1e-3, "warmup_steps": 2},
}  # fmt: skip
OURS = ("head_lr_factor", "layer_decay", "ema", "model_init")  # arguments of SegTrainer itself
TIMES = ("runtime", "per_second", "seconds")
Masks = list[np.ndarray]
VOID_TAGS = {"meta", "link", "img", "br", "use", "path"}  # of which the parser sees no end
FOLDER_CLASSES = ["background", "cat", "dog", "bird"]


def config_of(folder: Path, pets: Path, **sections: object) -> RunConfig:
    data = {"name": "oxford_pet", "root": str(pets)}
    return RunConfig.from_tree(SETTINGS | {"data": data, "output_dir": str(folder)} | sections, "test")


def train_tiny(folder: Path, pets: Path) -> Path:
    """A run of two steps on drawn pets in a folder with the user's name."""
    data = folder / "home" / USER / "pets"
    shutil.copytree(pets, data)
    output = folder / "home" / USER / "runs" / "tiny"
    run(config_of(output, data))
    return output


def make_model(kind: str, labels: LabelSet) -> PreTrainedModel:
    classes = {"id2label": labels.id2label, "label2id": labels.label2id}
    torch.manual_seed(3)
    if kind == "fcn":
        return HfsegFCNForSemanticSegmentation(HfsegFCNConfig(auxiliary_head=False, **classes)).half()
    config = HfsegSegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, **classes,
    )  # fmt: skip
    return HfsegSegformerForSemanticSegmentation(config)


def with_small_model(finished: Path, folder: Path, kind: str, labels: LabelSet) -> Path:
    """A copy of a finished run whose weights are those of a small new model, and whose card says so."""
    copy = folder / "home" / USER / kind
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("checkpoint-*"))
    shutil.rmtree(copy / "model")
    model = make_model(kind, labels)
    model.config.hfseg = json.loads((finished / "model" / "config.json").read_text())["hfseg"]
    model.save_pretrained(copy / "model")
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(copy / "model")
    config = yaml.safe_load((copy / "run_config.yaml").read_text())
    config["model"] |= {"type": kind, "size": {"segformer": "b0", "fcn": "resnet50"}[kind]}
    config["output_dir"] = str(copy)
    (copy / "run_config.yaml").write_text(yaml.safe_dump(config))
    write_card(copy)
    return copy


def segment(folder: str | Path) -> list[tuple[str, bytes]]:
    """What a pipeline by the name of a repository or folder answers, for one picture."""
    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    task = "image-segmentation"
    parts = pipeline(task, model=str(folder), trust_remote_code=True)(image)
    return [(part["label"], part["mask"].tobytes()) for part in parts]


def environment() -> dict[str, str]:
    """Of a subprocess: the test's own, in which the loopback Hub is the only one."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


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


def write_finished_run(
    job: Job, accuracy: float, num_images: int = 40, boundary: bool = False, images: int = 0
) -> None:
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
    (job.folder / "provenance.json").write_text(json.dumps(STUDY_PROVENANCE))
    (job.folder / "per_class.json").write_text(json.dumps(rows))
    (job.folder / "metrics.json").write_text(json.dumps(scores))
    for name in missing_pages(job.folder):
        (job.folder / name).parent.mkdir(exist_ok=True)
        (job.folder / name).touch()


def tiny_model(labels: LabelSet, **changes: Any) -> HfsegSegformerForSemanticSegmentation:
    config = HfsegSegformerConfig(
        depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 16, 32), num_attention_heads=(1, 1, 2, 2), decoder_hidden_size=16,
        id2label=labels.id2label, label2id=labels.label2id, **changes,
    )  # fmt: skip
    return HfsegSegformerForSemanticSegmentation(config)


def opinionated_model(labels: LabelSet) -> HfsegSegformerForSemanticSegmentation:
    """One that predicts every class somewhere, whatever the image."""
    torch.manual_seed(3)
    model = tiny_model(labels).eval()
    classifier = model.decode_head.classifier
    torch.nn.init.normal_(classifier.weight)
    with torch.no_grad():
        classifier.bias -= model(torch.randn(4, 3, 64, 64)).logits.mean((0, 2, 3))
    return model


def make_trainer(
    folder: Path,
    labels: LabelSet,
    model: Any = None,
    callbacks: Any = None,
    evaluation: EvalConfig = EvalConfig(),  # noqa: B008
    compute_metrics: Any = None,
    kind: type[SegTrainer] = SegTrainer,
    **arguments: Any,
) -> SegTrainer:
    config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 7, "size": 64})
    data, _ = load_dataset(config)
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    transform = TrainTransform(TransformsConfig(size=48), processor.image_mean, processor.image_std)
    defaults = {
        "output_dir": str(folder), "remove_unused_columns": False, "label_names": ["labels"], "disable_tqdm": True,
        "batch_eval_metrics": True, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
        "logging_steps": 2, "max_steps": 4, "dataloader_pin_memory": False,
    }  # fmt: skip
    ours = {key: arguments.pop(key) for key in OURS if key in arguments}
    return kind(
        model=model or (None if "model_init" in ours else tiny_model(labels)),
        args=TrainingArguments(**(defaults | arguments)),
        labels=labels,
        train_dataset=TrainSet(data["train"], transform, seed=1),
        evaluation=evaluation,
        eval_dataset=EvalSet(data["test"], processor, native=evaluation.is_native),
        data_collator=SegCollator(labels),
        processing_class=processor,
        callbacks=callbacks,
        compute_metrics=compute_metrics or SegMetrics(labels),
        **ours,
    )


def stable_model(labels: LabelSet) -> HfsegSegformerForSemanticSegmentation:
    """Without randomness, in float64, and with the BatchNorm in evaluation, where it does not see the micro-batch."""
    model = tiny_model(labels, drop_path_rate=0.0, classifier_dropout_prob=0.0).double()
    norm = model.decode_head.batch_norm.eval()
    norm.train = lambda mode=True: norm  # type: ignore[method-assign]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def uneven_samples(trainer: SegTrainer) -> "FixedSamples":
    """8 training samples in float64, each with fewer valid pixels than the one before and the last with none."""
    samples = FixedSamples(trainer.train_dataset[index] for index in range(8))
    for index, sample in enumerate(samples):
        mean, std = sample.pop("normalisation")[..., None, None]
        sample["pixel_values"] = (sample["pixel_values"].double() - mean) / std
        sample["labels"][: 5 * index if index < 7 else None] = 255
    return samples


class FixedSamples(list):
    """The same samples in every epoch, in order."""

    def set_epoch(self, epoch: int) -> None:
        pass


def write_config(folder: Path, pets: Path) -> Path:
    path = folder / "tiny.yaml"
    data = {"name": "oxford_pet", "root": str(pets)}
    path.write_text(yaml.safe_dump(RUN_SETTINGS | {"data": data, "output_dir": str(folder / "run")}))
    return path


def write_resume_config(folder: Path, pets: Path, **optim: Any) -> Path:
    path = folder / "tiny.yaml"
    tree = RESUME_SETTINGS | {"data": {"name": "oxford_pet", "root": str(pets)}, "output_dir": str(folder / "run")}
    path.write_text(yaml.safe_dump(tree | {"optim": optim}))
    return path


def history_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(TIMES)} for line in lines]


def assert_same_run(whole: Path, parts: Path) -> None:
    assert_same_run_results(whole, parts)
    assert history_of(whole) == history_of(parts)


def assert_same_run_results(whole: Path, parts: Path, rounding: float = 0.0) -> None:
    weights = [load_file(folder / "run" / "model" / "model.safetensors") for folder in (whole, parts)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert value.equal(weights[1][name]), name
    metrics = [json.loads((folder / "run" / "metrics.json").read_text()) for folder in (whole, parts)]
    for key, value in metrics[0].items():
        exactly = key.endswith("iou") or not isinstance(value, float)  # from counts
        expected = value if exactly else pytest.approx(value, rel=rounding, abs=0.0)
        assert key.endswith(TIMES) or metrics[1][key] == expected, key


def _link_checkpoints(source: str, target: str) -> None:
    """Nothing writes into the files of a checkpoint, so they need not be copied."""
    (os.link if "/checkpoint-" in source else shutil.copy2)(source, target)


def unfinished(finished: Path, folder: Path) -> Path:
    """The run as a kill after its last checkpoint leaves it."""
    shutil.copytree(finished / "run", folder / "run", copy_function=_link_checkpoints)
    (folder / "run" / "metrics.json").unlink()
    shutil.rmtree(folder / "run" / "model")
    return folder / "run"


def evaluate_mean_iou(predictions: Masks, references: Masks, num_labels: int, ignore_index: int) -> dict[str, Any]:
    """The definition that the metric `mean_iou` of `evaluate` 0.4 documents, restated: areas by histogram."""
    areas = np.zeros((3, num_labels))
    for prediction, reference in zip(predictions, references, strict=True):
        valid = reference != ignore_index
        predicted, label = prediction[valid], reference[valid]
        for row, values in enumerate((predicted[predicted == label], predicted, label)):
            areas[row] += np.histogram(values, bins=num_labels, range=(0, num_labels - 1))[0]
    intersect, predicted_area, label_area = areas
    with np.errstate(invalid="ignore"):
        iou, accuracy = intersect / (predicted_area + label_area - intersect), intersect / label_area
        return {
            "mean_iou": np.nanmean(iou),
            "mean_accuracy": np.nanmean(accuracy),
            "pixel_accuracy": intersect.sum() / label_area.sum(),
            "per_category_iou": iou,
            "per_category_accuracy": accuracy,
        }


@st.composite
def mask_cases(draw: st.DrawFn) -> tuple[int, int, Masks, Masks]:
    num_labels = draw(st.integers(2, 7))
    ignore_index = draw(st.sampled_from([255, -100, num_labels, 65535]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
    predictions = [rng.integers(0, num_labels, shape) for shape in shapes]
    references = [rng.choice([*range(num_labels), ignore_index], shape) for shape in shapes]
    references[0].flat[0] = 0  # at least one valid pixel
    return num_labels, ignore_index, predictions, references


def audited(
    predictions: Masks, references: Masks, num_labels: int, ignore_index: int = 255
) -> dict[str, float | None]:
    metrics = SegMetrics(num_labels, ignore_index)
    metrics.update(predictions, references)
    rows = [row for row in metrics.audit() if row.value is not None]
    return {f"{row.package.split()[0]} {row.call}": row.value for row in rows}


def make_segformer() -> PreTrainedModel:
    config = HfsegSegformerConfig(
        depths=(1, 1, 1, 1),
        hidden_sizes=(8, 16, 16, 32),
        num_attention_heads=(1, 1, 2, 2),
        decoder_hidden_size=16,
        num_labels=3,
    )
    return HfsegSegformerForSemanticSegmentation(config)


def make_fcn() -> PreTrainedModel:
    return HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3))


def model_kind(model: PreTrainedModel) -> str:
    return model.config_class.model_type.removeprefix("hfseg-")


class Page(HTMLParser):
    """Tables as rows of texts, and what the tests ask about everything else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> list[list[str]]:
        """The first table whose head starts so."""
        return next(table for table in self.tables if table[0][: len(first.split("|"))] == first.split("|"))


def draw_ids(seed: int, num_classes: int = 4, void: int | None = 255) -> NDArray[np.uint16]:
    """Ids with every class and some void, in an odd size."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, num_classes, (15 + seed % 3, 21)).astype(np.uint16)
    ids.flat[:num_classes] = np.arange(num_classes)
    if void is not None:
        ids[-2:, 3:9] = void
    return ids


def write_image(path: Path, shape: tuple[int, ...], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape[:2], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def save_8_bit(path: Path, ids: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def make_folder(
    root: Path,
    save: Callable[[Path, NDArray[np.uint16]], None] = save_8_bit,
    counts: dict[str, int] | None = None,
    suffix: str = ".png",
    **drawing: int | None,
) -> dict[str, NDArray[np.uint16]]:
    """Writes a data set; returns the ids of every sample by its name."""
    truth = {}
    for split, count in ({"train": 4, "val": 2} if counts is None else counts).items():
        for index in range(count):
            name = f"{split}/{index:02d}".lstrip("/")
            ids = draw_ids(len(truth), **drawing)  # type: ignore[arg-type]
            write_image(root / "images" / f"{name}.jpg", ids.shape, index)
            path = root / "masks" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, ids)
            truth[name] = ids
    (root / "classes.txt").write_text("\n".join(FOLDER_CLASSES) + "\n")
    return truth


def pack_cityscapes(root: Path, folder: Path) -> Path:
    """The two official archives of a folder."""
    folder.mkdir()
    for part in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(folder / f"{part}_trainvaltest.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted([root / "license.txt", *(root / part).rglob("*")]):
                file.write(path, path.relative_to(root))
    return folder


def cityscapes_train_ids(path: Path) -> np.ndarray:
    """What createTrainIdLabelImgs would make of a file of label ids, by cityscapesscripts' own table."""
    from cityscapesscripts.helpers import labels  # of an extra

    return np.vectorize(lambda value: labels.id2label[value].trainId)(np.array(Image.open(path))).astype(np.uint8)


def assert_same_as_cityscapes(data: datasets.DatasetDict, root: Path) -> None:
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 21,
        "validation": 4,
        "test": 3,
        "predict": 2,
    }
    for split, rows in data.items():
        official = {"test": "val", "predict": "test"}.get(split, "train")
        for row in rows:
            stem = f"{official}/{row['name'].partition('_')[0]}/{row['name']}"
            image = Image.open(root / "leftImg8bit" / f"{stem}_leftImg8bit.png")
            assert np.array_equal(np.array(row["image"]), np.array(image)), (split, row["name"])
            if split == "predict":
                assert row["label"] is None
            else:
                expected = cityscapes_train_ids(root / "gtFine" / f"{stem}_gtFine_labelIds.png")
                assert np.array_equal(np.array(row["label"]), expected), (split, row["name"])
