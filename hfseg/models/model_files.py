"""A model's folder: where it is, and its JSON files, checked for size, depth and types."""

import difflib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

from huggingface_hub.errors import StrictDataclassError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from hfseg.errors import MAX_SHOWN, UserError, printable, shown
from hfseg.files import read_text
from hfseg.hub import pull

MAX_BYTES = 16 << 20  # the configs of 20,000 classes have 2 MB
MAX_DEPTH = 50  # of lists and objects in each other
MODEL_OR_RUN = ("config.json", "model/config.json", "run_config.yaml")  # one of them is in its folder
MAX_LABELS = 1 << 16  # class ids are written as 16 bits
Tree = dict[str, Any]
# What transformers and torch raise where a folder's keys have values that no model can be built from.
LOADING_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, SafetensorError, StrictDataclassError,
)  # fmt: skip
# What its first forward pass raises, beside what its kernels say, where they could be built, but not computed.
FORWARD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)

Depth = Annotated[int, Field(ge=0, le=1000)]  # layers, each of which is an object in memory
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=1 << 14)]  # pixels
Byte = Annotated[int, Field(ge=0, le=255)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ClassName = Annotated[str, Field(max_length=1000)]


def resolve(source: str, key: str = "model.init") -> Path:
    """The folder itself, the `model` in it where it is a run's, or a snapshot of the Hub repository.

    Args:
        source: a folder or a Hub id.
        key: what the user calls it, for messages.

    Raises:
        UserError: it is neither, or a run's without a model, or a HubTransferError: the Hub cannot give it.
    """
    path = os.path.expanduser(source)
    if os.path.isdir(path):  # unlike pathlib's, false for what no folder can be called
        folder = Path(path)
        if (folder / "config.json").is_file():
            return folder
        if (folder / "model" / "config.json").is_file():
            return folder / "model"
        if (folder / "run_config.yaml").is_file():
            raise UserError(
                f"{key}={shown(source)} is the folder of a run that has left no model: there is no model/config.json "
                "in it. Let the run finish, with its config and --resume."
            )
        return folder
    if os.path.isfile(path):
        raise UserError(f"{key}={shown(source)} is a file. Give the folder that has the model's config.json, too.")
    try:
        return pull(source)
    except UserError as error:
        message = f"{key}={shown(source)} is no folder here and cannot be had from the Hub: {error}"
        raise type(error)(message + nearest_model(Path(path))) from error


def nearest_model(folder: Path) -> str:
    """A hint at the run or the model beside a folder that is called almost like it; starts with a space."""
    try:
        beside = [each for each in folder.parent.iterdir() if any((each / name).is_file() for name in MODEL_OR_RUN)]
    except OSError:  # no such folder
        return ""
    close = difflib.get_close_matches(folder.name, [each.name for each in beside], n=1)
    return f" Did you mean `{folder.parent / close[0]}`?" if close else ""


class _ConfigSchema(BaseModel):
    """Keys that are not named here stay as they are: the model's own class looks at them."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class Provenance(_ConfigSchema):
    """What hfseg leaves in a config under `hfseg`."""

    temperature: Positive | None = None
    palette: list[Annotated[list[Byte], Field(min_length=3, max_length=3)]] | None = None


class ModelConfigSchema(_ConfigSchema):
    """The keys of `config.json` that decide how much is built, what is run and what the classes are called."""

    model_type: str | None = None
    auto_map: dict[str, Any] | None = None
    id2label: Annotated[dict[str, ClassName | int], Field(max_length=MAX_LABELS)] | None = None
    label2id: dict[str, int | str] | None = None
    num_labels: int | None = Field(None, ge=1, le=MAX_LABELS)
    semantic_loss_ignore_index: int | None = None
    hfseg: Provenance | None = None
    backbone_config: "ModelConfigSchema | None" = None
    depths: list[Depth] | None = None
    num_encoder_blocks: Depth | None = None
    num_hidden_layers: Depth | None = None
    hidden_sizes: list[Count] | None = None
    num_attention_heads: list[Count] | Count | None = None
    patch_size: list[Side] | Side | None = None
    patch_sizes: list[Count] | None = None
    sr_ratios: list[Count] | None = None
    strides: list[Count] | None = None
    atrous_rates: list[Count] | None = None
    attn_implementation: str | None = Field(None, pattern=r"^\w+$")  # `owner/name` is code from the Hub

    @field_validator("id2label")
    @classmethod
    def _ids(cls, names: dict[str, Any] | None) -> dict[str, Any] | None:
        if names is not None and not all(key.isascii() and key.isdigit() for key in names):
            raise ValueError(f"the keys must be class ids, such as '0'; there is {shown(_first_odd(names))}")
        return names


class ProcessorConfigSchema(_ConfigSchema):
    """The keys of `preprocessor_config.json` that say what becomes of an image."""

    do_resize: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    keep_aspect_ratio: bool | None = None
    size: dict[str, Side | None] | Side | None = None
    resample: Annotated[int, Field(ge=0, le=5)] | None = None
    rescale_factor: Positive | None = None
    image_mean: list[Finite] | Finite | None = None
    image_std: list[Positive] | Positive | None = None


def read_config_file(path: Path, kind: type[_ConfigSchema]) -> Tree:
    """A JSON file of a model's folder, as it is, once its keys have the types that `kind` says.

    Raises:
        UserError: it cannot be read, is too large or too deep, is no JSON object, or a key holds something else.
    """
    try:
        tree = json.loads(read_text(path, MAX_BYTES), parse_constant=_no_number)
    except UserError as error:
        raise UserError(f"{error} Save or download the model again.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON that can be read ({shown(error)}). Save the model again.") from error
    check_config(tree, kind, str(path))
    return dict(tree)


def check_config(tree: object, kind: type[_ConfigSchema], name_in_errors: str) -> None:
    """Raises UserError where a tree of JSON values is not what `kind` says; `name_in_errors` names it."""
    if not isinstance(tree, dict):
        raise UserError(f"{name_in_errors} holds {shown(tree)}, not keys and values. Save the model again.")
    if _depth(tree) > MAX_DEPTH:
        raise UserError(f"{name_in_errors} has more than {MAX_DEPTH} lists and objects in each other.")
    try:
        kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if type(part) is int or str(part).isidentifier())
        raise UserError(
            f"{name_in_errors}: `{key[:100]}` is {shown(first['input'])}: {first['msg'][:300]}. Mend it, or save "
            "the model again."
        ) from error


@contextmanager
def loading(failure: str, remedy: str = "") -> Iterator[None]:
    """Around what transformers makes of a folder: without its table and its bar, as the verdict says it in one line.

    Args:
        failure: what the error says first: who could not be loaded.
        remedy: what it says last.

    Raises:
        UserError: nothing can be made of it.
    """
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"{failure} ({reason(error)}).{remedy}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()


def reason(error: Exception) -> str:
    """Kind and first line of an error, up to the first colour: some go on about what else could be done."""
    first = str(error).strip().partition("\n")[0].partition("\x1b")[0]
    return printable(f"{type(error).__name__}: {first}" if first else type(error).__name__)[:MAX_SHOWN]


def _depth(tree: object) -> int:
    """How many lists and objects are in each other; one more than allowed where there are more."""
    level, depth = [tree], 0
    while level and depth <= MAX_DEPTH:
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level, depth = [value for values in inner for value in values], depth + 1
    return depth


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _first_odd(names: dict[str, Any]) -> str:
    return next(key for key in names if not (key.isascii() and key.isdigit()))
