"""Any semantic segmentation model of transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
    SegformerForSemanticSegmentation,
)

from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet
from hfseg.models.freezing import encoder_name
from hfseg.models.model_files import ModelConfigSchema, loading, nearest_model, read_config_file, resolve
from hfseg.models.remote_code import code_options, remedy
from hfseg.models.segformer import speed_up
from hfseg.models.weight_files import num_elements

# A head for more classes may be new, and larger than all that was stored; nothing else makes a model grow.
MAX_GROWTH, MAX_NEW = 4, 100_000_000
COUNTERS = "num_batches_tracked"
# Tensors that do not change what a model predicts: buffers that are made again, and heads for the training alone.
BUFFERS = (COUNTERS, "position_ids", "relative_position_index")
TRAINING_HEADS = ("aux_classifier.", "auxiliary_head.")


def load_auto(folder: Path, labels: LabelSet, source: str, trust: bool = False) -> tuple[PreTrainedModel, str]:
    """A model of the class that its `config.json` names, in fp32, for this task's classes.

    Args:
        folder: config and safetensors, as `save_pretrained` writes them.
        labels: the classes of the task.
        source: where the folder comes from, for messages.
        trust: whether code that comes with the model may be run.

    Returns:
        The model, and a verdict: "exact", "all but the classifier" or "encoder only", and why.

    Raises:
        UserError: no semantic segmentation model of transformers, torn or missing files, weights that do not fit.
    """
    name_in_errors = f"model.init={shown(source)}"
    model, info = _load(folder, name_in_errors, trust, id2label=labels.id2label, label2id=labels.label2id)
    return model, _verdict(model, info, source)


def load_model(source: str | Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """A finished model in fp32 and evaluation mode, for `hfseg.predict(model, images)`; SegFormer in its fast form.

    Args:
        source: a folder (of a run, or with a model) or a Hub id.
        trust_remote_code: run the code that comes with the model, if there is some.

    Raises:
        UserError: there is none, something of it is missing, left over, torn or not finite, or it does no semantic
            segmentation.
    """
    folder, name_in_errors = resolve(str(source), "model"), f"model={shown(str(source))}"
    if not (folder / "config.json").is_file():
        raise UserError(f"{name_in_errors} is a folder without a model: it has no config.json.{nearest_model(folder)}")
    model, info = _load(folder, name_in_errors, trust_remote_code)
    _check_complete(model, info, name_in_errors)
    return speed_up(model) if isinstance(model, SegformerForSemanticSegmentation) else model


def _load(
    folder: Path, name_in_errors: str, trust: bool, **classes: dict[Any, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and what transformers says of the loading; `name_in_errors` names it in errors."""
    tree = read_config_file(folder / "config.json", ModelConfigSchema)
    stored = num_elements(folder)
    options = code_options(tree, folder, name_in_errors, trust)
    with loading(f"{name_in_errors} cannot be loaded as a semantic segmentation model", remedy(tree, trust)):
        config = AutoConfig.from_pretrained(folder, **classes, **options)
        with torch.device("meta"):  # without memory
            skeleton = AutoModelForSemanticSegmentation.from_config(config, **options)
        check_growth(skeleton, stored, name_in_errors)
        model, info = AutoModelForSemanticSegmentation.from_pretrained(
            folder,
            config=config,
            **options,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # each is looked at afterwards
            output_loading_info=True,
            use_safetensors=True,
        )
    check_finite(model, name_in_errors)
    return model, info


def check_growth(skeleton: PreTrainedModel, num_stored: int, name_in_errors: str) -> None:
    """Raises UserError where a model is so much larger than its weights that they cannot be its own."""
    size = sum(parameter.numel() for parameter in skeleton.parameters())
    if size > MAX_GROWTH * num_stored + MAX_NEW:
        raise UserError(
            f"{name_in_errors}: its weights are not those of its config: they are {num_stored} numbers, and by "
            f"the config there are {size}. Save or download the model again."
        )


def check_finite(model: PreTrainedModel, name_in_errors: str) -> None:
    """Raises UserError where a weight is NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{name_in_errors}: {name} is not finite: the training that wrote it has diverged, or the file is "
                "damaged. Choose other weights."
            )


def _check_complete(model: PreTrainedModel, info: dict[str, Any], name_in_errors: str) -> None:
    """Raises UserError where weights are missing or are not those of the config, or classes do not count from 0."""
    missing = sorted(name for name in info["missing_keys"] if not name.endswith(COUNTERS))
    if missing:
        raise UserError(f"{name_in_errors} is not complete: {len(missing)} tensors such as {missing[0]} are missing.")
    misshapen = sorted(info["mismatched_keys"])
    if misshapen:
        name, found, expected = misshapen[0]
        raise UserError(
            f"{name_in_errors}: its weights are not those of its config: {name} is {tuple(found)}, and by the config "
            f"it is {tuple(expected)}. Compare `id2label` with the number of classes, or save the model again."
        )
    left_over = _left_over(model, info)
    if left_over:
        raise UserError(
            f"{name_in_errors}: its weights are not those of its config: by the config there is no "
            f"{shown(left_over[0])}, nor {len(left_over) - 1} others. "
            "Save or download config.json and the weights together again."
        )
    ids = sorted(model.config.id2label)
    if ids != list(range(len(ids))):
        raise UserError(
            f"{name_in_errors}: `id2label` in its config names the classes {ids}, not 0 to {len(ids) - 1}."
        )


def _left_over(model: PreTrainedModel, info: dict[str, Any]) -> list[str]:
    """Stored tensors that the model has no place for, and that are part of what it was."""
    heads = tuple(name for name in TRAINING_HEADS if name.removesuffix(".") not in dict(model.named_children()))
    return sorted(
        name for name in info["unexpected_keys"] if not name.endswith(BUFFERS) and not name.startswith(heads)
    )


def _verdict(model: PreTrainedModel, info: dict[str, Any], source: str) -> str:
    """What was loaded, from the report of `from_pretrained`; raises where it is less than the encoder."""
    missing = {name for name in info["missing_keys"] if not name.endswith(COUNTERS)}
    resized = {name: (old[0], new[0]) for name, old, new in info["mismatched_keys"] if old[1:] == new[1:]}
    misshapen = {name for name, _, _ in info["mismatched_keys"]} - resized.keys()
    counts = set(resized.values())
    encoder = encoder_name(model)
    # without a name for the encoder, nothing may be missing
    in_encoder = {name for name in missing | set(resized) if encoder and name.startswith(encoder + ".")}
    unknown = set() if encoder else missing
    # where no head is missing, what is left over is a part that the config leaves out
    is_whole = not encoder or not missing
    foreign = {name for name in _left_over(model, info) if is_whole or name.startswith(f"{encoder}.")}
    wrong = sorted(misshapen | in_encoder | unknown | foreign | set(info["error_msgs"]))
    if wrong or len(counts) > 1 or any(new != model.config.num_labels for _, new in counts):
        does_not = f"model.init={shown(source)} does not fit {type(model).__name__}"
        raise UserError(
            f"{does_not}: {len(wrong) or len(resized)} tensors are missing, left over or of another "
            f"shape, such as {shown((wrong or sorted(resized))[:3])}. "
            "Check where the checkpoint comes from."
        )
    if missing:
        return f"encoder only: {len(missing)} tensors of the head, such as {min(missing)}, are new"
    if resized:
        ((old, new),) = counts
        return f"all but the classifier, which is new: the checkpoint has {old} classes, this task {new}"
    return "exact: every tensor was loaded"


def reload(model: PreTrainedModel, folder: Path) -> None:
    """Fills a model from a checkpoint of itself, through `from_pretrained`.

    Some models of transformers have other names on disk than in memory. The stock Trainer does not translate them: it
    loads what happens to have the same name.

    Raises:
        UserError: a tensor is missing, left over or of another shape.
    """
    with loading(f"The checkpoint {folder} cannot be loaded"):
        saved, info = type(model).from_pretrained(
            folder,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    wrong = {key: names for key, names in info.items() if names}
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    if wrong or shapes != {name: x.shape for name, x in saved.state_dict().items()}:
        raise UserError(f"The checkpoint {folder} does not fit the model: {wrong or 'it is another architecture'}.")
    model.load_state_dict(saved.state_dict())
