"""Finished runs for the tests of the Hub: one real training, and copies of it with small models in their place."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import PreTrainedModel, SegformerImageProcessor, pipeline

from hfseg import (
    HfsegFCNConfig,
    HfsegFCNForSemanticSegmentation,
    HfsegSegformerConfig,
    HfsegSegformerForSemanticSegmentation,
    LabelSet,
    RunConfig,
    run,
)
from hfseg.publishing.card import write_card

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
    config["model"]["type"], config["output_dir"] = kind, str(copy)
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
