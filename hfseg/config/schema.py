"""RunConfig: one typed, strict tree for a run, from YAML and `key.sub=value`. Imports no torch."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hfseg.config.ignored_settings import ignored_settings
from hfseg.config.study import StudyConfig
from hfseg.config.text_keys import KeyType, key_type
from hfseg.config.train_keys import hint, train_problems, without_nulls
from hfseg.config.yaml_file import apply_override, read_yaml
from hfseg.errors import UserError, shown
from hfseg.files import dump_yaml, write_text

MAX_PROBLEMS = 30  # that one message lists


class Section(BaseModel):
    """A part of the tree: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SyntheticConfig(Section):
    """What the `synthetic_*` data sets draw."""

    num_trainval: int = Field(400, ge=8)
    """Images that are drawn for training and validation."""
    num_test: int = Field(100, ge=4)
    """Images that are drawn for the test split."""
    size: int = Field(160, ge=32)
    """Long side of the images, in pixels."""
    seed: int = Field(0, ge=0)
    """Another seed draws other images."""


# Keys of `data:` that only some data sets have.
OWNERS = {
    "boundary": ("oxford_pet", "synthetic_pet"),
    "synthetic": ("synthetic_pet", "synthetic_cityscapes"),
    "classes": ("folder", "hub"),
    "reduce_labels": ("folder", "hub"),
    "ignore_index": ("folder", "hub"),
    "mask_suffix": ("folder",),
    "repo": ("hub",),
    "revision": ("hub",),
    "subset": ("hub",),
    "image_column": ("hub",),
    "label_column": ("hub",),
    "streaming": ("hub",),
}


class DataConfig(Section):
    """Which data, from where."""

    name: Literal["oxford_pet", "cityscapes", "folder", "hub", "synthetic_pet", "synthetic_cityscapes"]
    """Which reader: a public data set, your own `folder`, one of the `hub`, or drawn data (`synthetic_*`)."""
    root: Path | None = None
    """Folder of the data; `folder` needs it. Null: public data is downloaded, drawn data is drawn."""
    note: str | None = None
    """A line for the model card: what a score on this data is a score on."""
    classes: tuple[str, ...] | Path | None = None  # in this order: pydantic 2.10 would save a tuple as a path
    """A class file, or a list of names in the order of the ids; null finds the class file in the folder."""
    boundary: Literal["class", "ignore"] = "class"
    """The ring around a pet is a `class` of its own, or its pixels do not count (`ignore`)."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str = "label"
    """Column of the masks."""
    reduce_labels: bool = False
    """Make id 0 the ignore index, and every other id one less."""
    ignore_index: int | None = Field(None, ge=-100, le=65535)
    """Id of pixels that do not count; it may be a class. Null: 255, or 65535 for more than 255 classes."""
    mask_suffix: str = Field("", pattern=r"^[^/\\]*$")
    """What masks' names have after the images': `_mask` for `x.jpg` and `x_mask.png`."""
    repo: str | None = Field(None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """Data set of the Hub, `owner/name`."""
    revision: str | None = None
    """Branch, tag or commit of `repo`."""
    subset: str | None = None
    """Which of the data set's configurations, where it has several."""
    cache: bool = False
    """Decode each training and validation image once and keep it: 3 to 4 bytes a pixel on the disk."""
    streaming: bool = False
    """Read rows as they are needed, without a download; needs `train.max_steps`, and one process."""
    max_pixels: int | None = Field(None, ge=1)
    """Largest image that is opened, in pixels. Null: 178,956,970, Pillow's limit against harmful files."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What is drawn."""

    @field_validator("classes", mode="before")
    @classmethod
    def _file_or_names(cls, value: Any) -> Any:
        is_names = isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value)
        if not (value is None or isinstance(value, str | Path) or is_names):
            raise ValueError("must be a file, or a list of names such as [sky, road]")
        return value

    @field_validator("root", "classes")
    @classmethod
    def _expand(cls, path: Path | tuple[str, ...] | None) -> Path | tuple[str, ...] | None:
        return Path(os.path.expanduser(os.path.expandvars(path))) if isinstance(path, Path) else path

    @model_validator(mode="after")
    def _belongs(self) -> "DataConfig":
        changed = [key for key in OWNERS if getattr(self, key) != type(self).model_fields[key].default]
        wrong = [f"`{key}` is for {' and '.join(OWNERS[key])}" for key in changed if self.name not in OWNERS[key]]
        if wrong:
            raise ValueError(f"{'; '.join(wrong)}: it means nothing for {self.name}")
        if self.root is not None and self.revision is not None:
            raise ValueError("`revision` is for `repo`: it means nothing for the files in `root`")
        if self.cache and self.streaming:
            raise ValueError("`cache` keeps what has been decoded and `streaming` keeps nothing: choose one")
        if self.reduce_labels and self.ignore_index is not None:
            raise ValueError(
                "`reduce_labels` makes 0 the ignore index and shifts the others: leave out `ignore_index`"
            )
        return self


class FreezeStages(Section):
    """Freeze the first so many stages of the encoder."""

    stages: int = Field(ge=1)
    """How many, from the first; SegFormer and FCN have four."""


DEFAULT_SIZES = {"segformer": "b0", "fcn": "resnet50"}


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
    trust_remote_code: bool = False
    """With `type: auto`, run the code that comes with the model; without it, none is ever run."""

    @model_validator(mode="after")
    def _belongs(self) -> "ModelConfig":
        if self.type == "auto" and self.init is None:
            raise ValueError("`type: auto` needs `init`, a folder or a Hub id with the model's config and weights")
        if self.type == "auto" and self.size:
            raise ValueError("`size` is for segformer and fcn: with `type: auto` the checkpoint says it")
        if self.trust_remote_code and self.type != "auto":
            raise ValueError("`trust_remote_code` is for `type: auto`: hfseg has the code of the others")
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
        return {"size": DEFAULT_SIZES[kind]} | tree if kind in ("segformer", "fcn") else tree


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


class RunConfig(Section):
    """Everything that defines a run. A YAML file says only what differs from these defaults."""

    name: str
    """Name of the run: letters, digits, `.`, `_` and `-`."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Of everything that is random: new weights, order of the samples, augmentation."""
    output_dir: Path = Field(Path(), json_schema_extra={"default": "runs/<name>"})
    """Folder of the run."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    transforms: TransformsConfig = TransformsConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    train: dict[str, Any] = Field(default_factory=dict)
    """What `transformers.TrainingArguments` takes, by the same names."""
    hub: HubConfig = HubConfig()
    study: StudyConfig | None = None
    """Makes the config a study, which is several runs compared."""

    @field_validator("output_dir", mode="before")
    @classmethod
    def _is_given(cls, value: Any) -> Any:
        if value == "":  # a variable that is not set; Path would make it the working directory
            raise ValueError("must not be empty")
        return value

    @field_validator("output_dir")
    @classmethod
    def _expand(cls, path: Path) -> Path:
        return Path(os.path.expanduser(path))  # as TrainingArguments does with it

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("becomes a folder's name: letters, digits, '.', '_' and '-' only")
        return name

    @model_validator(mode="before")
    @classmethod
    def _default_output_dir(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("name"), str):
            return {"output_dir": f"runs/{tree['name']}"} | tree
        return tree

    @model_validator(mode="before")
    @classmethod
    def _default_transforms(cls, tree: Any) -> Any:
        """The recipe of the model, where the tree is silent; saved with the rest. A study leaves it to its runs."""
        model, transforms = (tree.get("model"), tree.get("transforms", {})) if isinstance(tree, dict) else (None, None)
        kind = model.type if isinstance(model, ModelConfig) else model.get("type") if isinstance(model, dict) else None
        if kind == "fcn" and isinstance(transforms, dict) and tree.get("study") is None:
            return tree | {"transforms": FCN_TRANSFORMS | transforms}
        return tree

    @model_validator(mode="after")
    def _publishes_to(self) -> "RunConfig":
        if self.train.get("push_to_hub") and self.hub.repo is None:
            raise ValueError("`train.push_to_hub` needs `hub.repo`, such as me/name")
        if self.train.get("push_to_hub") and self.hub.create_pr:
            raise ValueError(
                "`train.push_to_hub` publishes every checkpoint to a branch, and `hub.create_pr` the finished run as "
                "a pull request: choose one"
            )
        return self

    @model_validator(mode="after")
    def _is_looked_at(self) -> "RunConfig":
        if self.model.type != "fcn" and self.loss.aux_weight != LossConfig().aux_weight:
            raise ValueError(f"`loss.aux_weight` is for fcn's second head: it means nothing for {self.model.type}")
        if self.study is not None and self.seed != type(self).model_fields["seed"].default:
            raise ValueError("`seed` means nothing for a study: set `study.seeds`")
        if self.study is not None and self.hub.repo is not None:
            raise ValueError("`hub.repo` means nothing for a study: publish its runs with `--push`")
        return self

    @property
    def eval_size(self) -> int:
        return self.eval.size or self.transforms.size

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> "RunConfig":
        """Reads a YAML file, applies `key.sub=value` overrides and checks every key and value.

        Args:
            path: the YAML file.
            overrides: strings like `train.max_steps=100`; see `apply_override` for their values.

        Raises:
            UserError: lists everything that is wrong at once, each with its key and, for an unknown key, the nearest
                right name.
        """
        tree = read_yaml(Path(path), type_of)
        for override in overrides:
            apply_override(tree, override, type_of)
        return cls.from_tree(tree, str(path))

    @classmethod
    def from_tree(cls, tree: dict[str, Any], source: str) -> "RunConfig":
        """Checks a tree of plain values; `source` names it in errors. A null under `train:` takes the key back."""
        if isinstance(tree.get("train"), dict):
            tree = tree | {"train": without_nulls(tree["train"])}
        found: Iterator[str] = iter(())
        config = None
        try:
            config = cls.model_validate(tree)
        except ValidationError as error:
            found = (explain(item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors())
        problems = list(islice(chain(found, _train_problems(tree)), MAX_PROBLEMS))
        if problems or config is None:
            number = f"{len(problems)} problem(s)" if len(problems) < MAX_PROBLEMS else "many problems, such as these,"
            raise UserError("\n".join([f"{source}: {number} in the config", *problems]))
        return config

    def save(self, path: Path) -> None:
        """Writes the resolved config: with it alone the run can be repeated."""
        write_text(path, dump_yaml(self.model_dump(mode="json")))


def type_of(path: tuple[str, ...]) -> KeyType:
    """What a key of the tree may hold."""
    return key_type(RunConfig, path)


def _train_problems(tree: dict[str, Any]) -> Iterator[str]:
    train = tree.get("train")
    if not isinstance(train, dict):
        return
    is_right = True
    for problem in train_problems(train):
        is_right = False
        yield problem
    if is_right and tree.get("study") is None:  # what a study shares is whole only in its runs
        yield from ignored_settings(train)


def explain(loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    """One of pydantic's findings, with the nearest right name for an unknown key."""
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        section = "".join(f"{part}." for part in loc[:-1])
        return f"  {key}: unknown key.{hint(str(loc[-1]), section, _known_keys(loc[:-1]))}"
    if kind == "missing":
        return f"  {key}: this key is required."
    message = message.removeprefix("Value error, ")
    return f"  {key}: {message} (got {shown(value)})" if key else f"  {message}"  # the whole tree says nothing


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    section: Any = RunConfig
    for part in loc:
        if part not in section.model_fields:  # pydantic's name for one side of a union
            continue
        kinds = (section.model_fields[part].annotation, *get_args(section.model_fields[part].annotation))
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)
