"""The config of a training on a folder of images and masks, where there is none: layout, classes and weights found."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from hfseg.command.shipped import shipped
from hfseg.config import RunConfig
from hfseg.data import draft_class_file, find_layout, has_class_file
from hfseg.errors import HubTransferError
from hfseg.files import write_text, writing
from hfseg.hub import pull

CLASSES = "classes.txt"  # in the run's folder, where the data has no class file
FROM_SCRATCH = ("model.init=null", "train.learning_rate=1.0e-3", "optim.head_lr_factor=1")


def folder_config(folder: Path, overrides: Sequence[str], resume: bool = False, trains: bool = True) -> RunConfig:
    """Says what it has found and taken, and gives the config: folder/segformer_b0, or the one for a CPU, filled in.

    Args:
        folder: with images/ and masks, see `hfseg.data.folder`.
        overrides: of single keys; they win.
        resume: take the config that the run was begun with.
        trains: ask the Hub for the weights to begin with.

    Raises:
        UserError: an override is wrong, or masks cannot be read where no class file says what they hold.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("._-") or "own-data"
    base = shipped()["folder/segformer_b0" if torch.accelerator.is_available() else "folder/segformer_b0_cpu"]
    suffix, masks = find_layout(folder)
    chosen = [f"name={name}", f"data.root={folder}", f"data.mask_suffix={suffix}"]
    config = RunConfig.load(base, [*chosen, *overrides])
    saved = config.output_dir / "run_config.yaml"
    if resume and saved.is_file():
        return RunConfig.load(saved, overrides)
    if config.data.classes is None and masks and not has_class_file(folder):
        chosen.append(f"data.classes={_draft_classes(config.output_dir / CLASSES, masks)}")
    if trains and config.model.init is not None and not any(each.startswith("model.") for each in overrides):
        chosen += _ask_for(config.model.init)
    config = RunConfig.load(base, [*chosen, *overrides])
    if trains:
        print(f"config: {saved}, made from {base.parent.name}/{base.stem}")
    return config


def _draft_classes(path: Path, masks: Sequence[Path]) -> Path:
    """The class file of the run, written where there is none yet."""
    if not path.is_file():
        text = draft_class_file(masks)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    print(f"classes: the data has no class file; {path} lists what the masks hold. Name them there, or in the data.")
    return path.resolve()


def _ask_for(init: str) -> tuple[str, ...]:
    """Overrides for a training from scratch, where the Hub does not give the weights."""
    try:
        pull(init)
    except HubTransferError as error:
        print(f"weights: from scratch, as {init} could not be had. {error}")
        return FROM_SCRATCH
    print(f"weights: {init} from the Hub, whose licence allows non-commercial use only")
    return ()
