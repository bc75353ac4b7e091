"""RunConfig: one typed, strict tree for a run, from YAML and `key.sub=value`. Imports no torch."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from hfseg.config.data import DataConfig
from hfseg.config.ignored_settings import ignored_settings
from hfseg.config.section import Section
from hfseg.config.sections import (
    FCN_TRANSFORMS,
    EvalConfig,
    HubConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TransformsConfig,
)
from hfseg.config.study import StudyConfig
from hfseg.config.text_keys import KeyType, key_type
from hfseg.config.train_keys import train_problems, without_nulls
from hfseg.config.yaml_file import apply_override, read_yaml
from hfseg.files import dump_yaml, write_text


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
    def _goes_together(self) -> "RunConfig":
        if self.train.get("push_to_hub") and self.hub.repo is None:
            raise ValueError("`train.push_to_hub` needs `hub.repo`, such as me/name")
        if self.train.get("push_to_hub") and self.hub.create_pr:
            raise ValueError(
                "`train.push_to_hub` publishes every checkpoint to a branch, and `hub.create_pr` the finished run as "
                "a pull request: choose one"
            )
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
        """Reads a YAML file, applies overrides such as `train.max_steps=100` and checks every key and value.

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
        """Checks a tree, see `Section.from_tree`. A null under `train:` takes the key back."""
        if isinstance(tree.get("train"), dict):
            tree = tree | {"train": without_nulls(tree["train"])}
        return super().from_tree(tree, source)

    @classmethod
    def other_problems(cls, tree: dict[str, Any]) -> Iterator[str]:
        train = tree.get("train")
        if not isinstance(train, dict):
            return
        problems = train_problems(train)
        first = next(problems, None)
        if first is not None:
            yield first
            yield from problems
        elif tree.get("study") is None:  # what a study shares is whole only in its runs
            yield from ignored_settings(train)

    def save(self, path: Path) -> None:
        """Writes the resolved config: with it alone the run can be repeated."""
        write_text(path, dump_yaml(self.model_dump(mode="json")))


def type_of(path: tuple[str, ...]) -> KeyType:
    """What a key of the tree may hold."""
    return key_type(RunConfig, path)
