"""Building a model, from scratch or from weights in any of the layouts in use, with a verdict on what was loaded."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from transformers import PreTrainedModel, SegformerConfig

from hfseg.config import ModelConfig
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet
from hfseg.models.auto_model import check_finite, check_growth, load_auto
from hfseg.models.fcn.configuration_fcn import HfsegFCNConfig
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.freezing import Frozen, frozen_parts
from hfseg.models.lora import add_lora
from hfseg.models.model_files import ModelConfigSchema, loading, read_config_file, reason, resolve
from hfseg.models.segformer.configuration_segformer import SIZES, HfsegSegformerConfig
from hfseg.models.segformer.conversion import published_names
from hfseg.models.segformer.modeling_segformer import HfsegSegformerForSemanticSegmentation
from hfseg.models.weight_files import SUFFIXES, State, read_safetensors, read_weights

logger = logging.getLogger(__name__)

# the layers whose size is the number of classes
CLASSIFIERS = ("decode_head.classifier.", "classifier.4.", "aux_classifier.4.")


def build_model(
    config: ModelConfig, labels: LabelSet, source: str | None = None, exact: bool = False
) -> PreTrainedModel:
    """The model that `model:` describes, with its frozen parts frozen if they stay so (see `unfreeze_at`).

    Args:
        config: type, size, `init`, `freeze` and `lora`.
        labels: the classes of the task.
        source: overrides `config.init`.
        exact: nothing of the model may be new, not even LoRA's updates.

    Raises:
        UserError: an unknown size, no weights at `init`, weights that are torn, or those of another architecture.
    """
    source = source or config.init
    model, verdict = _auto(config, labels, source) if config.type == "auto" else _own(config, labels, source)
    if verdict is not None:
        logger.warning("%s: %s", source, verdict)
        if exact and not verdict.startswith("exact"):
            raise UserError(f"{source}: {verdict}. Its score would be that of random weights; train it first.")
    if config.freeze != "none":
        parts = frozen_parts(model, config.num_frozen_stages)
        if config.unfreeze_at is None:
            Frozen(parts)
    if config.lora is not None and not exact:
        add_lora(model, config.lora.r, config.lora.alpha)
    return model


def _auto(config: ModelConfig, labels: LabelSet, source: str | None) -> tuple[PreTrainedModel, str]:
    if source is None:
        raise UserError("model.type=auto: set model.init to a folder or a Hub id.")
    return load_auto(resolve(source), labels, source, config.trust_remote_code)


def _own(config: ModelConfig, labels: LabelSet, source: str | None) -> tuple[PreTrainedModel, str | None]:
    build = {"segformer": _segformer, "fcn": _fcn}[config.type]
    model, state = build(config.size, labels, source)
    if state is None:
        return model, None
    verdict = load_weights(model, state, str(source))
    check_finite(model, f"model.init={shown(source)}")
    return model, verdict


def load_weights(model: PreTrainedModel, state: State, source: str) -> str:
    """Copies tensors into a model: all of them, all but the classifier, or the encoder alone.

    Args:
        model: its encoder is the attribute `base_model_prefix`; the rest is the head.
        state: tensors under the model's names.
        source: where they come from, for messages.

    Returns:
        A verdict that starts with "exact", "all but the classifier" or "encoder only", and says why.

    Raises:
        UserError: the encoder does not fit entirely.
    """
    everything = model.state_dict()
    own = {name: x for name, x in everything.items() if not name.endswith("num_batches_tracked")}
    fitting = {name: x for name, x in state.items() if name in own and own[name].shape == x.shape}
    missing, foreign = own.keys() - fitting.keys(), state.keys() - everything.keys()
    prefix, parts = model.base_model_prefix + ".", [name for name, _ in model.named_children()]
    wrong = sorted(name for name in missing | foreign if name.startswith(prefix) or name.split(".")[0] not in parts)
    if wrong:
        raise UserError(
            f"model.init={shown(source)} holds no weights of this encoder: {len(wrong)} tensors do not fit, such as "
            f"{shown(wrong[:3])}. Check model.type, model.size and where the checkpoint comes from."
        )
    head = {name for name in state if not name.startswith(prefix)}
    resized = {name for name in missing if name in state and name.startswith(CLASSIFIERS)}
    auxiliary = {name for name in missing if name.startswith("aux_classifier.")}
    if not head or foreign or missing - resized - auxiliary:
        model.load_state_dict({name: x for name, x in fitting.items() if name.startswith(prefix)}, strict=False)
        why = f"its head is another one (such as {shown(min(missing | foreign))})" if head else "it has no head"
        return f"encoder only, because {why}; the head is new"
    model.load_state_dict(fitting, strict=False)
    if resized:
        old, new = len(state[min(resized)]), len(own[min(resized)])
        return f"all but the classifier, which is new: the checkpoint has {old} classes, this task {new}"
    return "all but the auxiliary head, which is new" if auxiliary else "exact: every tensor was loaded"


def _segformer(
    size: str, labels: LabelSet, source: str | None
) -> tuple[HfsegSegformerForSemanticSegmentation, State | None]:
    config = HfsegSegformerConfig.from_size(size, labels)
    if source is None:
        return HfsegSegformerForSemanticSegmentation(config), None
    if _is_file(source):
        state = read_weights(Path(source), f"model.init={shown(source)}")
        return HfsegSegformerForSemanticSegmentation(config), published_names(state)
    folder = resolve(source)
    expected = (tuple(config.depths), tuple(config.hidden_sizes), config.decoder_hidden_size)
    config = _read_config(folder, labels, source)
    found = (tuple(config.depths), tuple(config.hidden_sizes), config.decoder_hidden_size)
    if found != expected:
        name = next((name for name, shape in SIZES.items() if shape == found), None)
        remedy = f"set model.size={name}" if name else "it is of no published size"
        which = f"model.init={shown(source)}"
        raise UserError(f"{which} is not a SegFormer-{size.upper()} (depths {shown(found[0])}): {remedy}.")
    state = published_names(read_safetensors(folder))
    return _build(lambda: HfsegSegformerForSemanticSegmentation(config), state, source), state


def _is_file(source: str) -> bool:
    """Whether weights are read from one file, rather than from a folder or the Hub."""
    return Path(source).suffix in SUFFIXES or os.path.isfile(os.path.expanduser(source))


def _build(
    build: Callable[[], HfsegSegformerForSemanticSegmentation], state: State, source: str
) -> HfsegSegformerForSemanticSegmentation:
    """The model of a config that came with weights: first without memory, as it may be of any size.

    Raises:
        UserError: there is no such model, or it is far larger than its weights.
    """
    with loading(f"model.init={shown(source)}: no model can be built by its config.json"):
        with torch.device("meta"):
            skeleton = build()
        check_growth(skeleton, sum(tensor.numel() for tensor in state.values()), f"model.init={shown(source)}")
        return build()


def _fcn(size: str, labels: LabelSet, source: str | None) -> tuple[HfsegFCNForSemanticSegmentation, State | None]:
    model = HfsegFCNForSemanticSegmentation(
        HfsegFCNConfig(
            backbone=size,
            id2label=labels.id2label,
            label2id=labels.label2id,
            semantic_loss_ignore_index=labels.ignore_index,
        )
    )
    if source is None:
        return model, None
    if "_Weights." in source:  # such as ResNet50_Weights.IMAGENET1K_V2
        state = _download_torchvision(source)
    elif _is_file(source):
        state = read_weights(Path(source), f"model.init={shown(source)}")
    else:
        state = read_safetensors(resolve(source))
    if not any(name.startswith("backbone.") for name in state):  # a classification ResNet
        state = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    return model, state


def _read_config(folder: Path, labels: LabelSet, source: str) -> HfsegSegformerConfig:
    path = folder / "config.json"
    model_type = read_config_file(path, ModelConfigSchema).get("model_type")
    if model_type not in (SegformerConfig.model_type, HfsegSegformerConfig.model_type):
        raise UserError(
            f"model.init={shown(source)} is a {shown(model_type)} checkpoint, not one of model.type. "
            "Choose a checkpoint of the same architecture."
        )
    with loading(f"{path} is not a valid config"):
        config: HfsegSegformerConfig = HfsegSegformerConfig.from_pretrained(
            folder,
            id2label=labels.id2label,
            label2id=labels.label2id,
            semantic_loss_ignore_index=labels.ignore_index,
            trust_remote_code=False,
        )
    return config


def _download_torchvision(name: str) -> dict[str, torch.Tensor]:
    try:
        return dict(torchvision.models.get_weight(name).get_state_dict(progress=True, check_hash=True))
    except (ValueError, KeyError) as error:
        raise UserError(f"model.init={name!r} is not one of torchvision's weights: {reason(error)}") from error
    except (OSError, RuntimeError) as error:
        raise UserError(f"model.init={name!r} could not be downloaded: {reason(error)}") from error
