"""Which classes a training is about, and whether its parts agree on them."""

from typing import Any

from torch import nn
from transformers import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, PreTrainedModel

from hfseg.data import SegCollator
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics


def is_segmentation_model(model: nn.Module) -> bool:
    """Whether `AutoModelForSemanticSegmentation` would make a model of this class."""
    if not isinstance(model, PreTrainedModel) or type(model.config) not in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        return False
    return isinstance(model, MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING[type(model.config)])


def labels_of(model: nn.Module, data_collator: Any, compute_metrics: Any) -> LabelSet:
    """The classes that one of a training's parts says: the collator, the metrics or the model's config."""
    for part in (data_collator, compute_metrics):
        if isinstance(part, SegCollator | SegMetrics):
            return part.labels
    return LabelSet.of_config(model.config)


def check_classes(labels: LabelSet, model: nn.Module, data_collator: Any, compute_metrics: Any) -> None:
    """Raises UserError where model, collator or metrics know other classes than `labels`."""
    num_outputs = model.config.num_labels if isinstance(model, PreTrainedModel) else labels.num_labels
    if num_outputs != labels.num_labels and (num_outputs, labels.num_labels) != (1, 2):
        raise UserError(
            f"The model has {num_outputs} outputs for {labels.num_labels} classes "
            f"({shown(list(labels.names))}). Build it with num_labels={labels.num_labels}, or load it with "
            "id2label=labels.id2label, label2id=labels.label2id and ignore_mismatched_sizes=True."
        )
    others = {"data_collator": data_collator.labels} if isinstance(data_collator, SegCollator) else {}
    others |= {"compute_metrics": compute_metrics.labels} if isinstance(compute_metrics, SegMetrics) else {}
    numbered = tuple(map(str, range(labels.num_labels)))  # of a SegMetrics(3)
    for name, other in others.items():
        if other.names not in (labels.names, numbered) or other.ignore_index != labels.ignore_index:
            raise UserError(
                f"{name} is for the classes {shown(list(other.names))} with ignore_index={other.ignore_index}, "
                f"the trainer's labels are {shown(list(labels.names))} with ignore_index={labels.ignore_index}. Make "
                f"both from the same LabelSet, or leave {name} out."
            )
