"""Which parameters learn how fast, and which decay."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from hfseg.errors import UserError
from hfseg.models import encoder_name


def parameter_groups(
    model: nn.Module, args: TrainingArguments, head_lr_factor: float = 1.0, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """The optimizer's groups: by learning rate, and each with and without weight decay.

    Everything outside the encoder (see `encoder_name`) is the head and learns at `learning_rate * head_lr_factor`.
    The encoder learns at `learning_rate`, or with `layer_decay` at `learning_rate * layer_decay ** depth`, its last
    layer having depth 1 (see `encoder_layers`). A model that does not say what its encoder is learns at the encoder's
    rate. Norms and biases, that is every parameter with one dimension, are not decayed; stock decays BatchNorm.

    Returns:
        Groups from the encoder's last layer down to its first, then the head's; frozen parameters are in none.

    Raises:
        UserError: the model is not one of transformers, or `layer_decay` for one that does not tell its stages.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"head_lr_factor and layer_decay are for models of transformers, which say what their encoder is; this is "
            f"a {type(model).__name__}. Leave them out, or pass `optimizers` or `optimizer_cls_and_kwargs`."
        )
    groups = []
    for parameters, factor in _parts(model, head_lr_factor, layer_decay):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for is_decayed, weight_decay in ((True, args.weight_decay), (False, 0.0)):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == is_decayed]
            if chosen:
                groups.append({"params": chosen, "lr": args.learning_rate * factor, "weight_decay": weight_decay})
    return groups


def encoder_layers(model: PreTrainedModel) -> list[list[nn.Module]]:
    """The encoder's layers from first to last, as `layer_decay` counts them.

    A layer is a transformer block (SegFormer) or a residual stage (FCN). What comes before the blocks of a stage, such
    as the patch embedding or the stem, belongs to the stage's first layer, and what comes after to its last.

    Raises:
        UserError: the model has no `encoder_stages()`.
    """
    if not hasattr(model, "encoder_stages"):
        raise UserError(f"optim.layer_decay: {type(model).__name__} does not tell its stages; set it to null.")
    layers: list[list[nn.Module]] = []
    for stage in model.encoder_stages():
        blocks = next((part for part in stage if isinstance(part, nn.ModuleList)), None)
        if blocks is None:
            layers.append(list(stage))
            continue
        index = next(number for number, part in enumerate(stage) if part is blocks)
        stage_layers = [[block] for block in blocks]
        stage_layers[0] += stage[:index]
        stage_layers[-1] += stage[index + 1 :]
        layers += stage_layers
    return layers


def _parts(
    model: PreTrainedModel, head_lr_factor: float, layer_decay: float | None
) -> Iterator[tuple[list[nn.Parameter], float]]:
    """The parameters of each layer, and what multiplies their learning rate; each parameter once."""
    prefix = encoder_name(model)
    start = "" if prefix is None else prefix + "."
    encoder = {id(parameter): parameter for name, parameter in model.named_parameters() if name.startswith(start)}
    head = [parameter for parameter in model.parameters() if id(parameter) not in encoder]
    if layer_decay is not None:
        for depth, layer in enumerate(reversed(encoder_layers(model)), start=1):
            parameters = [parameter for module in layer for parameter in module.parameters()]
            yield (
                [parameter for parameter in parameters if encoder.pop(id(parameter), None) is not None],
                (layer_decay**depth),
            )
    yield list(encoder.values()), 1.0
    yield head, head_lr_factor
