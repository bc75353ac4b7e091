"""Files of weights: the safetensors of a model's folder, and single files as training programs write them."""

import argparse
import logging
import math
import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hfseg.errors import UserError, shown
from hfseg.models.model_files import ModelConfigSchema, read_config_file, reason

logger = logging.getLogger(__name__)

State = Mapping[str, torch.Tensor]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, WHOLE, PICKLED_INDEX = "pytorch_model*.bin", "pytorch_model.bin", "pytorch_model.bin.index.json"
TORN = (SafetensorError, OSError, ValueError)  # what safetensors raises
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that programs put the weights under
# what DistributedDataParallel, torch.compile and Lightning's modules put in front of every name
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that are a folder's weights, by their standard name or by the index of the shards.

    Raises:
        UserError: there are none, the index cannot be read, or names files that are not in the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder / INDEX)
    raise UserError(f"{folder} holds no {WEIGHTS}. {_instead(folder)}")


def num_elements(folder: Path) -> int:
    """How many numbers a folder's weights have, from their headers; names in a warning what is not read beside them.

    Raises:
        UserError: there are no weights, or they are torn; see `weight_files`.
    """
    files, total = weight_files(folder), 0
    strays = sorted({path.name for path in folder.glob("*.safetensors")} - {path.name for path in files})
    if strays:
        names = ", ".join(path.name for path in files[:3])
        logger.warning("%s: the weights are %s; %s beside them is not read.", folder, names, shown(strays))
    for path in files:
        try:
            with safe_open(path, "pt") as content:
                total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
        except TORN as error:
            raise torn(path, error) from error
    return total


def _shards(index: Path) -> list[Path]:
    tree = read_config_file(index, ModelConfigSchema)
    shards = tree.get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index} has no `weight_map` of tensors to files. Download or save the model again.")
    names = sorted(set(shards.values()))
    absent = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if absent:
        raise UserError(
            f"{index} names {len(absent)} of {len(names)} files that are not in the folder, such as "
            f"{shown(absent[0])}. Download or save the model again."
        )
    return [index.parent / name for name in names]


def _instead(folder: Path) -> str:
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return f"There is {shown(others)}: give the file its standard name, or save the model again."
    if next(folder.glob(PICKLED), None) is None:
        return "Save the model again, with model.save_pretrained(folder), or download all of it."
    code = "import sys; from hfseg.models.weight_files import convert; convert(sys.argv[1])"
    return f'There is {PICKLED}, which is not loaded. Convert it once: python -c "{code}" {shlex.quote(str(folder))}'


def read_safetensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder; see `num_elements` for what is raised."""
    num_elements(folder)
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        state |= _read_safetensors_file(path)
    return state


def convert(folder: str | Path) -> None:
    """Writes `model.safetensors` beside the pickled weights of a folder, which are read as plain tensors.

    Raises:
        UserError: there are none, not all of them, or they hold something else than tensors.
    """
    folder = Path(folder)
    if (folder / WHOLE).is_file():
        pickled = [folder / WHOLE]
    elif (folder / PICKLED_INDEX).is_file():
        pickled = _shards(folder / PICKLED_INDEX)
    else:
        pickled = sorted(folder.glob(PICKLED))
    if not pickled:
        raise UserError(f"{folder} holds no {PICKLED}.")
    state: dict[str, torch.Tensor] = {}
    for path in pickled:
        state |= _read_tensors(path, str(path))  # a model's own names may begin as a wrapper's
    # tied weights share memory, which safetensors refuses
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def read_weights(path: Path, name_in_errors: str) -> dict[str, torch.Tensor]:
    """The tensors in one file: safetensors, or a checkpoint of torch, of which only plain tensors are read.

    Of a training program's checkpoint the weights are taken out, and the wrappers' prefixes off their names.

    Args:
        path: of the file.
        name_in_errors: what the user calls it, for messages.

    Raises:
        UserError: it cannot be read, or there are no weights in it.
    """
    return without_prefixes(_read_tensors(path.expanduser(), name_in_errors), name_in_errors)


def _read_tensors(path: Path, name_in_errors: str) -> dict[str, torch.Tensor]:
    """The weights in a file under the names that they have there; see `read_weights`."""
    if path.suffix == ".safetensors":
        return _read_safetensors_file(path)
    try:
        _check_kind(path, name_in_errors)
        # torchvision's reference scripts keep their command line beside the weights: plain values
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name_in_errors} does not exist. Check the path.") from error
    except pickle.UnpicklingError as error:
        refused = f"{name_in_errors} holds more than plain tensors, whose loading would run code ({reason(error)})."
        code = f"import torch; torch.save(torch.load({str(path)!r}, 'cpu', weights_only=False)[KEY], 'weights.pth')"
        raise UserError(
            f"{refused} Where you trust it, save the weights alone (KEY is what they are under, such as "
            f"'state_dict') and load those: {code}"
        ) from error
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{name_in_errors} cannot be read as plain tensors ({reason(error)}). Save it again."
        ) from error
    state = _weights_in(content, name_in_errors)
    if state is None:
        keys = shown(list(content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{name_in_errors} cannot be read as plain tensors: there is no state dict in it, but {keys}. "
            "Save model.state_dict()."
        )
    return state


def _check_kind(path: Path, name_in_errors: str) -> None:
    """Raises UserError where a file does not begin as torch's do: as a ZIP archive, before torch 1.6 as a pickle."""
    with path.open("rb") as file:
        start = file.read(40)
    if start and not start.startswith((b"PK", b"\x80")):
        raise UserError(
            f"{name_in_errors} is no checkpoint of torch: it begins with {shown(start)}. Download it again, or save "
            "model.state_dict()."
        )


def _weights_in(content: Any, name_in_errors: str) -> dict[str, torch.Tensor] | None:
    """The state dict itself, the one under a wrapper's key, or the only one there is."""
    if _is_state(content):
        return content
    inner = {key: value for key, value in content.items() if _is_state(value)} if isinstance(content, dict) else {}
    chosen = next((key for key in WRAPPERS if key in inner), next(iter(inner)) if len(inner) == 1 else None)
    if chosen is None:
        return None
    others = [key for key in inner if key != chosen]
    if others:
        logger.warning(
            "%s: the weights under %s are read, those under %s not.", name_in_errors, shown(chosen), shown(others)
        )
    return inner[chosen]


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_tensor, value.items()))


def _is_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def without_prefixes(state: dict[str, torch.Tensor], name_in_errors: str) -> dict[str, torch.Tensor]:
    """The tensors under a wrapper's prefix, without it; what is beside them, such as a loss's, is named and left.

    No model here has parts that are called so. Where there are several wrappers, all tensors stay as they are.
    """
    while len(found := {each for each in PREFIXES if any(name.startswith(each) for name in state)}) == 1:
        (prefix,) = found
        beside = sorted(name for name in state if not name.startswith(prefix))
        if beside:
            logger.warning(
                "%s: the weights are those under %s; %d tensors beside them, such as %s, are not read.",
                name_in_errors, prefix, len(beside), shown(beside[0]),
            )  # fmt: skip
        state = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    return state


def _read_safetensors_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except TORN as error:
        raise torn(path, error) from error


def torn(path: Path, error: Exception) -> UserError:
    """What is said of a file that safetensors does not read."""
    said = f"{path} is torn, missing or no safetensors file ({reason(error)})."
    return UserError(f"{said} Download or save it again.")
