"""The `data:` section of a run's config: which data, from where. Imports no torch."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hfseg.config.section import Section


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
