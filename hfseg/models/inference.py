"""For evaluation and prediction: a fused copy of a model, and the temperature in its config."""

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from hfseg.errors import UserError, shown
from hfseg.files import write_text
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation


def inference_copy(model: nn.Module) -> nn.Module | None:
    """An FCN with its BatchNorms folded, 1.2 to 1.4 times as fast; to be dropped before the next training step.

    Returns:
        The copy, or None for other models: SegFormer folds its one BatchNorm in every forward pass anyway.
    """
    return model.fuse() if isinstance(model, HfsegFCNForSemanticSegmentation) else None


def provenance_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The `hfseg` part of a model's config, empty where there is none; raises UserError where it is no such part."""
    ours = config.to_dict().get("hfseg") or {}
    if not isinstance(ours, dict):
        raise UserError(
            f"{config.name_or_path or 'The model'}: `hfseg` in its config is {shown(ours)}, not keys and values. "
            "Remove the key."
        )
    return ours


def temperature_of(config: PreTrainedConfig) -> float:
    """What a model's logits are to be divided by before the softmax; 1 where none was fitted.

    Raises:
        UserError: the config holds something else than a positive number.
    """
    temperature = provenance_of(config).get("temperature")
    if temperature is None:
        return 1.0
    if type(temperature) not in (int, float) or not 0 < temperature < float("inf"):
        raise UserError(
            f"{config.name_or_path or 'The model'}: `hfseg.temperature` in its config is {shown(temperature)}, not a "
            "positive number. Remove the key, or score the run again with --eval-only."
        )
    return float(temperature)


def store_temperature(folder: Path, temperature: float | None) -> None:
    """Writes the temperature into the config of a saved model; None takes out one that is there."""
    path = folder / "config.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    ours = {key: value for key, value in (tree.get("hfseg") or {}).items() if key != "temperature"}
    tree["hfseg"] = ours if temperature is None else ours | {"temperature": temperature}
    write_text(path, json.dumps(tree, indent=2, sort_keys=True) + "\n")
