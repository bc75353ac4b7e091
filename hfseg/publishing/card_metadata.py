"""The YAML at the top of a card, which the Hub reads."""

from huggingface_hub import EvalResult, ModelCardData

from hfseg.config import RunConfig
from hfseg.metrics import metric_name
from hfseg.reporting import EXAMPLE_IMAGES
from hfseg.runs import DATA_SETS, RunResults, hub_id, licence_of_weights

# our metric -> the id that the Hub has for it
HUB_METRICS = {"mean_iou": "mean_iou", "pixel_accuracy": "accuracy", "mean_accuracy": "mean_accuracy"}


def metadata(run: RunResults, show_images: bool = False) -> ModelCardData:
    """Everything that makes the model findable, and its test scores in the Hub's form.

    With `show_images` also the images of the data that the model's page on the Hub has for a first try.
    """
    config = run.run_config
    licence, base_model, data_set = licence_of_weights(config), hub_id(config), DATA_SETS[config.data.name]
    data_id = config.data.repo if config.data.name == "hub" else data_set.hub_id
    family = [] if config.model.type == "auto" else [config.model.type]
    relation = {"base_model_relation": "finetune"} if base_model and run.provenance.get("steps") else {}
    shown = [path for name in EXAMPLE_IMAGES if show_images and (path := run.figure(name))]
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
        widget=[{"src": path, "example_title": f"Image {number}"} for number, path in enumerate(shown, 1)] or None,
        model_name=config.name,
        eval_results=[
            EvalResult(
                task_type="image-segmentation",
                task_name="Semantic segmentation",
                dataset_type=data_id or config.data.name,
                dataset_name=config.data.note or data_set.title,
                dataset_split="test",
                metric_type=kind,
                metric_name=f"{metric_name(key)} ({protocol(config)})",
                metric_value=round(run.metrics[f"test_{key}"], 4),
            )
            for key, kind in HUB_METRICS.items()
            if run.metrics[f"test_{key}"] is not None
        ],
        **relation,
    )


def protocol(config: RunConfig) -> str:
    """How the scores were counted, in words."""
    return f"one confusion matrix at the labels' native size, {model_input(config)}"


def model_input(config: RunConfig) -> str:
    """How images reached the model when it was scored, in words."""
    evaluation = config.eval
    if evaluation.mode == "slide":
        text = f"windows of {evaluation.crop} x {evaluation.crop} every {evaluation.stride} pixels"
    elif evaluation.mode == "whole":
        text = "images as they are"
    elif config.model.type == "auto" and evaluation.size is None:
        text = "images resized by the model's own processor"
    else:
        text = f"images resized to {config.eval_size} x {config.eval_size}"
    if evaluation.scales != (1.0,):
        text += f", {len(evaluation.scales)} scales"
    return text + ", mirrored too" * evaluation.flip
