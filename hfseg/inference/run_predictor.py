"""The predictor of a trained model that images are shown to as in the evaluation of its run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from hfseg.config import EvalConfig, RunConfig, apply_override, explain, read_yaml, type_of
from hfseg.data import cityscapes_labels, pet_labels
from hfseg.errors import UserError, shown
from hfseg.inference.predictor import Predictor, with_processor
from hfseg.labels import LabelSet
from hfseg.models import processor_beside, provenance_of, resolve, weight_files

MODE_KEYS = ("mode", "size", "crop", "stride", "scales", "flip")
SCORE_KEYS = {"boundary", "calibration"}  # of `eval`, which change no prediction


def parse_overrides(overrides: Sequence[str]) -> tuple[int | None, dict[str, Any]]:
    """The value of `data.max_pixels`, None without one, and the values of the `eval.` keys.

    Raises:
        UserError: there is another key, or the number of pixels is no whole number above 0.
    """
    tree: dict[str, Any] = {}
    for override in overrides:
        apply_override(tree, override, type_of)
    data, changes = tree.pop("data", {}), tree.pop("eval", {})
    is_known = isinstance(data, dict) and data.keys() <= {"max_pixels"} and not tree
    if not is_known or not isinstance(changes, dict) or SCORE_KEYS & changes.keys():
        raise UserError(
            f"{', '.join(overrides)}: only eval. keys and data.max_pixels change a prediction. The keys are "
            f"{', '.join(MODE_KEYS)}; such as eval.mode=slide eval.crop=512 eval.stride=384."
        )
    max_pixels = data.get("max_pixels")
    if max_pixels is not None and (type(max_pixels) is not int or max_pixels < 1):
        raise UserError(
            f"data.max_pixels={shown(max_pixels)} must be a number of pixels, such as data.max_pixels=400000000."
        )
    return max_pixels, changes


def load_predictor(
    source: str, changes: Mapping[str, Any], device: torch.device, trust_remote_code: bool = False
) -> tuple[Predictor, LabelSet, dict[str, Any]]:
    """The predictor, its classes, and the settings that its predictions depend on, as JSON values.

    Args:
        source: a folder (of a run, or with a model) or a Hub id.
        changes: values of `eval.` keys that replace those of the run. With a `mode` none of the run's own counts.
        device: where the model is to be.
        trust_remote_code: run the code that comes with the model, if there is some.

    Raises:
        UserError: there is no such model, or its config, its run's config or the changes are wrong.
    """
    folder = resolve(source, "--model")
    model, stored = with_processor(folder, trust_remote_code=trust_remote_code)
    does_resize = json.loads(stored.to_json_string()).get("do_resize", True)
    options = _eval_options(folder, changes, "resize" if does_resize else "whole")
    processor = processor_beside(folder, options.size, source, "--model", trust_remote_code)
    processor.do_resize = not options.is_native
    labels = labels_of(model)
    settings = {
        "model": source,
        "weights": _digest(folder),
        "classes": list(labels.names),
        "eval": options.model_dump(mode="json", exclude=SCORE_KEYS),
    }
    return Predictor.of(model.to(device), processor, options), labels, settings


def _eval_options(folder: Path, changes: Mapping[str, Any], default_mode: str) -> EvalConfig:
    """Those of the run's config, which lies beside a published model and above the one in a run's folder."""
    places = [folder / "run_config.yaml", *([folder.parent / "run_config.yaml"] if folder.name == "model" else [])]
    run_config = next((path for path in places if path.is_file()), None)
    section = {} if run_config is None else read_yaml(run_config, type_of).get("eval", {})
    if not isinstance(section, dict):
        raise UserError(f"{run_config}: `eval` holds {section!r}, not keys and values.")
    own = {} if "mode" in changes else {key: value for key, value in section.items() if key in MODE_KEYS}
    try:
        return EvalConfig.model_validate({"mode": default_mode} | own | dict(changes))
    except ValidationError as error:
        problems = [explain(RunConfig, ("eval", *e["loc"]), e["type"], e["msg"], e["input"]) for e in error.errors()]
        raise UserError("\n".join([f"{len(problems)} problem(s) in the config", *problems])) from error


def _digest(folder: Path) -> str:
    """Of everything in a model's folder that its predictions depend on."""
    described = [folder / name for name in ("config.json", "preprocessor_config.json") if (folder / name).is_file()]
    total = hashlib.sha256()
    for path in (*described, *weight_files(folder)):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def labels_of(model: PreTrainedModel) -> LabelSet:
    """The classes of a model, in the colours that it was trained with, or that its data set is known by."""
    names = list(LabelSet.of_config(model.config).names)
    palette = provenance_of(model.config).get("palette")
    if palette is not None and len(palette) != len(names):
        raise UserError(
            f"{model.name_or_path or 'The model'}: `hfseg.palette` in its config has {len(palette)} colours for "
            f"{len(names)} classes. Remove the key, or save the model again."
        )
    for known in (cityscapes_labels(), pet_labels("class"), pet_labels("ignore")):
        if palette is None and list(known.names) == names:
            palette = known.palette
    return LabelSet(names, ignore_index=-1, palette=palette)
