"""The sections of a run's config but `data:` and `train:`; see `RunConfig`. Imports no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hfseg.config.section import Section
from hfseg.config.train_keys import nearest


class FreezeStages(Section):
    """Freeze the first so many stages of the encoder."""

    stages: int = Field(ge=1)
    """How many, from the first; SegFormer and FCN have four."""


class LoraConfig(Section):
    """Low-rank updates W + alpha / r * B A of linear layers."""

    r: int = Field(ge=1)
    """Rank of the updates."""
    alpha: float = Field(gt=0)
    """How much they count, in multiples of `r`."""


# Of each type, its default first; `auto` has none.
MODEL_SIZES = {"segformer": ("b0", "b1", "b2", "b3", "b4", "b5"), "fcn": ("resnet50", "resnet101")}


class ModelConfig(Section):
    """Which model, from which weights."""

    type: Literal["segformer", "fcn", "auto"] = "segformer"
    """SegFormer, FCN, or `auto`: any semantic segmentation model of transformers, as `init` describes it."""
    size: str = Field("", json_schema_extra={"default": "b0"})
    """`b0` to `b5` for segformer; `resnet50` (its default) or `resnet101` for fcn; nothing for auto."""
    init: str | None = Field(None, min_length=1)
    """Where weights come from: a folder, a file, a Hub id, a torchvision weight. Null: from scratch."""
    freeze: Literal["none", "encoder"] | FreezeStages = "none"
    """Which part of the encoder is not trained: none, all of it, or its first stages."""
    unfreeze_at: int | None = Field(None, ge=1)
    """Optimizer step after which what is frozen is trained, too; null: never."""
    lora: LoraConfig | None = None
    """Train updates of rank r (LoRA) of the encoder's linear layers in place of its weights; they count `alpha / r`
    times and are merged at the end."""
    trust_remote_code: bool = False
    """With `type: auto`, run the code that comes with the model; without it, none is ever run."""

    @field_validator("size")
    @classmethod
    def _is_known(cls, size: str, info: ValidationInfo) -> str:
        kind = info.data.get("type")
        if kind in MODEL_SIZES and size not in MODEL_SIZES[kind]:
            raise ValueError(f"no size of {kind}.{nearest(size, MODEL_SIZES[kind])}")
        return size

    @model_validator(mode="after")
    def _belongs(self) -> "ModelConfig":
        if self.type == "auto" and self.init is None:
            raise ValueError("`type: auto` needs `init`, a folder or a Hub id with the model's config and weights")
        if self.type == "auto" and self.size:
            raise ValueError("`size` is for segformer and fcn: with `type: auto` the checkpoint says it")
        if self.trust_remote_code and self.type != "auto":
            raise ValueError("`trust_remote_code` is for `type: auto`: hfseg has the code of the others")
        if self.lora is not None and self.freeze != "none":
            raise ValueError("`lora` freezes the encoder's own weights: leave `freeze` out")
        if self.unfreeze_at is not None and self.freeze == "none":
            raise ValueError("`unfreeze_at` needs something that is frozen before it: set `freeze`")
        return self

    @property
    def num_frozen_stages(self) -> int | None:
        """Of the encoder; None is all of it."""
        return self.freeze.stages if isinstance(self.freeze, FreezeStages) else None

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, tree: Any) -> Any:
        kind = tree.get("type", "segformer") if isinstance(tree, dict) else None
        return {"size": MODEL_SIZES[kind][0]} | tree if kind in MODEL_SIZES else tree


class LossConfig(Section):
    """The training loss: cross-entropy over valid pixels, and what is added to it."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """The only one there is."""
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """A factor for each class's pixels, in the order of the ids."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """As in torch: the share of the target that is spread over all classes."""
    dice: float = Field(0.0, ge=0)
    """Add so many times the soft Dice loss; 0 adds none."""
    ohem: float | None = Field(None, gt=0, lt=1)
    """Online hard example mining: drop pixels whose class has at least this probability already."""
    aux_weight: float = Field(0.4, ge=0)
    """Weight of the loss of FCN's auxiliary head; 0 does without it."""


class TransformsConfig(Section):
    """Training augmentation; the defaults are the SegFormer paper's recipe, and for FCN torchvision's."""

    size: int = Field(512, ge=32)
    """Side of the square crop that the model is trained on, in pixels."""
    scale: tuple[float, float] | None = (0.5, 2.0)
    """Range of the random factor: the image's short side becomes `size` times it. Null: always 1."""
    cat_max_ratio: float | None = Field(0.75, gt=0, le=1)
    """Largest share of a crop that one class may fill; another crop is tried. Null: any."""
    flip: bool = True
    """Mirror an image left to right, with probability 1/2."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue at random."""

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise ValueError("must be two positive factors, the smaller first, or null")
        return scale


# What FCN was trained with, torchvision's references/segmentation: the short side 0.5 to 2 times 520, crops of 480.
FCN_TRANSFORMS = {"size": 480, "scale": (0.5 * 520 / 480, 2 * 520 / 480), "cat_max_ratio": None, "photometric": False}


class OptimConfig(Section):
    """Optimizer settings that TrainingArguments does not have."""

    head_lr_factor: float = Field(10.0, gt=0)
    """The head's learning rate, as a multiple of `train.learning_rate`."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Factor by which each layer of the encoder learns slower than the one above it."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is scored and kept in their place."""
    early_stopping: int | None = Field(None, ge=1)
    """End after so many evaluations without a better `train.metric_for_best_model`."""


class EvalConfig(Section):
    """How images reach the model in evaluation; labels keep their native size in every mode."""

    mode: Literal["resize", "whole", "slide"] = "resize"
    """`resize`: every image to one size. `whole`: as it is. `slide`: in windows whose logits are averaged."""
    size: int | None = Field(None, ge=32)
    """Side that `resize` brings images to. Null: `transforms.size`; for `auto`, the model's own size."""
    crop: int | None = Field(None, ge=32)
    """Side of a window of `slide`, in pixels."""
    stride: int | None = Field(None, ge=1)
    """Pixels from one window to the next, at most `crop`."""
    scales: tuple[Annotated[float, Field(gt=0, le=16)], ...] = Field((1.0,), min_length=1)
    """Average the probabilities over the image resized by each of these factors."""
    flip: bool = False
    """Average the probabilities over the image and its mirror image, too."""
    boundary: bool = False
    """Also score contours: Boundary IoU, and mean IoU in bands around the labels' contours."""
    calibration: bool = True
    """Also score confidence at the end, and save a temperature fitted on validation with the model."""

    @model_validator(mode="after")
    def _belongs(self) -> "EvalConfig":
        if self.boundary and not self.is_plain:
            raise ValueError(
                "`boundary` needs an image's whole prediction, which `mode: slide`, `scales` and `flip` never hold: "
                "use `resize` or `whole` without them"
            )
        if self.mode == "slide" and (self.crop is None or self.stride is None):
            raise ValueError("`mode: slide` needs `crop` and `stride`, such as 1024 and 768")
        if self.mode != "slide" and not (self.crop is None and self.stride is None):
            raise ValueError(f"`crop` and `stride` are for `mode: slide`: they mean nothing for {self.mode}")
        if self.mode != "resize" and self.size is not None:
            raise ValueError(f"`size` is for `mode: resize`: {self.mode} takes images at their native size")
        if self.crop is not None and self.stride is not None and self.stride > self.crop:
            raise ValueError(f"`stride` {self.stride} is larger than `crop` {self.crop}: pixels would be left out")
        return self

    @property
    def is_native(self) -> bool:
        """Whether images keep their own size."""
        return self.mode != "resize"

    @property
    def is_plain(self) -> bool:
        """Whether one pass over the image, as it comes from the processor, is all."""
        return self.mode != "slide" and self.scales == (1.0,) and not self.flip


class HubConfig(Section):
    """Where a run is published at its end."""

    repo: str | None = Field(None, min_length=1)
    """`owner/name`; null publishes nothing."""
    revision: str | None = Field(None, min_length=1)
    """Branch; null is the main one."""
    private: bool = True
    """A new repository is private, and one that everybody can see is refused."""
    create_pr: bool = False
    """Open a pull request instead of writing to the branch."""
    images: bool = False
    """Also send pictures that show images of the data."""
