"""The YAML at the top of a card, which the Hub reads."""

from huggingface_hub import EvalResult, ModelCardData

from hfseg.runs import Facts, hub_id, is_number, licence_of_weights

# key in metrics.json, the Hub's id of the metric, its name
METRICS = (
    ("mean_iou", "mean_iou", "mean IoU"),
    ("pixel_accuracy", "accuracy", "pixel accuracy"),
    ("mean_accuracy", "mean_accuracy", "mean class accuracy"),
)


def metadata(facts: Facts) -> ModelCardData:
    """Everything that makes the model findable, and its test scores in the Hub's form."""
    config = facts.config
    licence, base_model = licence_of_weights(config), hub_id(config)
    data_id = config.data.repo if config.data.name == "hub" else facts.data_set.hub_id
    family = [] if config.model.type == "auto" else [config.model.type]
    relation = {"base_model_relation": "finetune"} if base_model and facts.origin.steps else {}
    return ModelCardData(
        license=licence.id,
        license_name=licence.name,
        license_link=licence.link,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        base_model=base_model,
        datasets=[data_id] if data_id else None,
        metrics=["mean_iou", "accuracy"],
        tags=["semantic-segmentation", "vision", "hfseg", *family],
        model_name=config.name,
        eval_results=[
            EvalResult(
                task_type="image-segmentation",
                task_name="Semantic segmentation",
                dataset_type=data_id or config.data.name,
                dataset_name=config.data.note or facts.data_set.title,
                dataset_split="test",
                metric_type=kind,
                metric_name=f"{name} ({short_protocol(facts)})",
                metric_value=round(facts.metrics[f"test_{key}"], 4),
            )
            for key, kind, name in METRICS
            if is_number(facts.metrics[f"test_{key}"])
        ],
        **relation,
    )


def short_protocol(facts: Facts) -> str:
    """How a score was measured, in a few words."""
    return f"one confusion matrix at the labels' native size, {input_of_evaluation(facts)}"


def input_of_evaluation(facts: Facts) -> str:
    """How images reached the model."""
    evaluation = facts.config.eval
    if evaluation.mode == "slide":
        text = f"windows of {evaluation.crop} x {evaluation.crop} every {evaluation.stride} pixels"
    elif evaluation.mode == "whole":
        text = "images as they are"
    elif facts.config.model.type == "auto" and evaluation.size is None:
        text = "images resized by the model's own processor"
    else:
        text = f"images resized to {facts.config.eval_size} x {facts.config.eval_size}"
    if evaluation.scales != (1.0,):
        text += f", {len(evaluation.scales)} scales"
    return text + ", mirrored too" * evaluation.flip
