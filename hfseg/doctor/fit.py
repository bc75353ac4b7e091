"""Whether data and model work together, before the first step: what would fail at the first evaluation, at the last
batch of an epoch or after the whole training."""

import math
from collections.abc import Mapping

import datasets
from transformers import BaseImageProcessor, PreTrainedModel, TrainingArguments

from hfseg.config import EvalConfig, RunConfig
from hfseg.data import EncodedRows, file_of_cell, reading, undecoded
from hfseg.doctor.inspection import Size, open_file, read_header
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet
from hfseg.metrics import class_keys
from hfseg.models import dry_run
from hfseg.training import check_arguments

MAX_NAMES = 8
MAX_TRIES = 40  # of sizes: SegFormer takes images from 29 pixels on
SCORED = ("validation", "test")
Splits = Mapping[str, datasets.Dataset | datasets.IterableDataset]


def check_fit(
    config: RunConfig,
    args: TrainingArguments,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: Splits,
    labels: LabelSet,
    eval_only: bool,
) -> None:
    """Every check that takes both the data and the model.

    The model is moved to the training's device, and left in evaluation mode.

    Raises:
        UserError: what does not fit, by its key of the config or the name of the image.
    """
    check_arguments(args, model)
    check_labelled(args, data, labels)
    model.to(args.device)
    crop = None
    if not eval_only:
        check_training_batches(config, args, model, None if config.data.streaming else len(data["train"]))
        crop = (config.transforms.size, config.transforms.size)
    check_evaluated_sizes(config.eval, model, processor, data, crop)


def check_labelled(args: TrainingArguments, data: Splits, labels: LabelSet) -> None:
    """Raises UserError where all labels of a split are void, or the best-model metric is of an absent class.

    Streams pass.
    """
    splits = {name: split for name in SCORED if isinstance(split := data[name], datasets.Dataset)}
    for name, split in splits.items():
        if not has_pixels(split, labels.ignore_index):
            raise UserError(
                f"No pixel of the {name} split has a label that counts, all are {labels.ignore_index}: there is "
                "nothing to score. Label them, or move labelled samples to it; --check lists what is wrong."
            )
    wanted = str(args.metric_for_best_model).removeprefix("eval_")
    keys = class_keys(labels.names)
    if wanted not in keys or "validation" not in splits:
        return
    index = keys.index(wanted)
    if not has_pixels(splits["validation"], labels.ignore_index, index):
        raise UserError(
            f"train.metric_for_best_model={wanted}: no validation image has a pixel of class "
            f"{labels.names[index]!r}, so its IoU chooses nothing. Choose another metric, such as mean_iou, or "
            "add images with the class to the validation split."
        )


def check_training_batches(
    config: RunConfig, args: TrainingArguments, model: PreTrainedModel, num_images: int | None
) -> None:
    """Whether the model takes the training's crops, and the smallest of its batches.

    `num_images` are those of the training split; None for a stream.

    Raises:
        UserError: the crop has a size that the model does not take, or a batch of one image reaches a batch norm
            over maps of one pixel.
    """
    size, batch = config.transforms.size, args.per_device_train_batch_size
    problem, single_value_norms = dry_run(model, (size, size))
    if problem is not None:
        raise UserError(
            f"transforms.size={size}: the model does not take images of {size} x {size} pixels ({shown(problem)}). "
            "Choose a size that it takes; its own is in the config and the image processor beside its weights."
        )
    if not single_value_norms or smallest_batch(args, num_images) > 1:
        return
    cause = f"train.per_device_train_batch_size={batch}"
    if batch > 1:
        cause = f"{num_images} training images in batches of {batch} leave one for the last batch"
    remedy = f"train.per_device_train_batch_size={max(2, batch)} and train.dataloader_drop_last=true"
    if num_images is not None and num_images < max(2, batch):
        remedy = f"train.per_device_train_batch_size=2 with more training images than {num_images}"
    raise UserError(
        f"{cause}: {single_value_norms[0]} is a batch norm over maps of one pixel, and of one image it has one value "
        f"for each channel, from which it cannot learn. Set {remedy}."
    )


def smallest_batch(args: TrainingArguments, num_images: int | None) -> int:
    """Images in the smallest batch that a process of the training sees, as far as that is known."""
    batch = args.per_device_train_batch_size
    # accelerate fills the last batches of several processes up
    if num_images is None or args.dataloader_drop_last or args.world_size > 1:
        return batch
    batches = math.ceil(num_images / batch)
    if 0 < args.max_steps * args.gradient_accumulation_steps < batches:
        return batch
    return num_images % batch or batch


def check_evaluated_sizes(
    options: EvalConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    data: Splits,
    taken: Size | None = None,
) -> None:
    """Whether the model takes what evaluation gives it of all images of validation and test, streams apart.

    `taken` is a (height, width) that it is known to take: a dry run of 1024 x 1024 takes a CPU 20 seconds.

    Raises:
        UserError: it does not; names the images and the remedy.
    """
    described = f"eval.mode={options.mode}" + f" with eval.scales={list(options.scales)}" * (options.scales != (1.0,))
    if options.mode == "resize":
        height, width = smallest_input((processor.size["height"], processor.size["width"]), options)
        problem = None if (height, width) == taken else dry_run(model, (height, width))[0]
        if problem is not None:
            raise UserError(
                f"{described}: the model does not take images of {height} x {width} pixels ({shown(problem)}). Choose "
                "an eval.size, and eval.scales, that it takes."
            )
        return
    splits = {name: split for name in SCORED if isinstance(split := data[name], datasets.Dataset)}
    sizes = {
        f"{image} of {name}": size for name, split in splits.items() for image, size in image_sizes(split).items()
    }
    inputs = {name: smallest_input(size, options) for name, size in sizes.items()}
    problem, least = too_small(model, set(inputs.values()))
    if problem is None:
        return
    wrong = [f"{name} ({sizes[name][1]} x {sizes[name][0]})" for name in inputs if min(inputs[name]) < least]
    more = f" and {len(wrong) - MAX_NAMES} more" if len(wrong) > MAX_NAMES else ""
    raise UserError(
        f"{described}: the model does not take images of the size of {', '.join(wrong[:MAX_NAMES])}{more}: "
        f"{shown(problem)}. Leave them out, restore them at their full size, or write eval: {{mode: resize}}, which "
        "brings all images to one size."
    )


def smallest_input(size: Size, options: EvalConfig) -> Size:
    """The smallest (height, width) that the model sees of an image of this size: scaled, and cut into windows."""
    scaled = [max(1, round(side * min(options.scales))) for side in size]
    limit = options.crop or max(scaled)
    return min(scaled[0], limit), min(scaled[1], limit)


def too_small(model: PreTrainedModel, sizes: set[Size]) -> tuple[str | None, int]:
    """Why the model does not take the smallest of these inputs, and the short side from which on it takes them.

    Inputs are tried from the smallest on, one for each short side, until one passes: mostly the first does.
    """
    problem = None
    by_side = {min(size): size for size in sorted(sizes, reverse=True)}
    for side in sorted(by_side)[:MAX_TRIES]:
        refusal, _ = dry_run(model, by_side[side])
        if refusal is None:
            return problem, side
        problem = problem or refusal
    return problem, max(by_side, default=0) + 1


def image_sizes(data: datasets.Dataset) -> dict[str, Size]:
    """Name -> (height, width), from the headers of the label maps, which are as large as their images.

    Nothing is decoded: 20,000 of them take a second.

    Raises:
        UserError: a label map cannot be read; names the sample.
    """
    sizes = {}
    for row in undecoded(data).select_columns(["name", "label"]):
        where = f"The label map of sample {shown(row['name'])}"
        with reading(where), open_file(file_of_cell(row["label"]) or b"") as image:
            width, height = read_header(image).upright
        sizes[row["name"]] = (height, width)
    return sizes


def has_pixels(data: datasets.Dataset, ignore_index: int, index: int | None = None) -> bool:
    """Whether a split has a pixel of a class, or of any class; stops at the first."""
    rows = EncodedRows(data)
    for number in range(len(rows)):
        label = rows[number].label
        found = label != ignore_index
        if index is not None:
            found &= label == index
        if found.any():
            return True
    return False
