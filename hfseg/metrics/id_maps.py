"""Class id maps as they are given, of any library, type and device: one checked batch, or a clear refusal."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfseg.errors import UserError
from hfseg.metrics.confusion import is_ignored
from hfseg.metrics.scores import Counts

Mask = torch.Tensor | np.ndarray


def as_batch(mask: Mask, what: str) -> torch.Tensor:
    """A tensor (B, H, W) of signed integers or uint8, from (H, W) or (B, H, W).

    Raises:
        UserError: another shape, or no integers; calls the map `what`.
    """
    if isinstance(mask, np.ndarray) and mask.dtype.kind == "u" and mask.dtype.itemsize > 1:
        mask = mask.astype(np.int64)  # torch has next to no arithmetic for uint16 to uint64
    if isinstance(mask, np.ndarray) and not mask.flags.writeable:
        mask = mask.copy()  # as PIL's arrays are; torch warns of them
    tensor = torch.as_tensor(mask)
    if tensor.ndim not in (2, 3) or tensor.is_floating_point() or tensor.is_complex():
        raise UserError(
            f"{what} must be integer class ids of shape (H, W) or (B, H, W); got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}. From logits take `argmax(dim=1)` at the labels' size."
        )
    if tensor.dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.to(torch.int64)
    return _narrowed(tensor if tensor.ndim == 3 else tensor.unsqueeze(0))


def _narrowed(ids: torch.Tensor) -> torch.Tensor:
    """Ids of 64 bits, as `argmax` gives them, in 8 or 32 bits where all of them fit: counting moves less memory."""
    if ids.dtype == torch.int64 and ids.numel():
        low, high = (int(each) for each in ids.aminmax())
        for kind in (torch.uint8, torch.int32):
            if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
                return ids.to(kind)
    return ids


def check_ids(predicted: torch.Tensor, labelled: torch.Tensor, num_labels: int, ignore_index: int) -> torch.Tensor:
    """Returns predictions (B, H, W) that are classes under ignored labels too.

    Raises:
        UserError: an id outside the classes where it counts; names the image.
    """
    counts = ~is_ignored(labelled, ignore_index)  # a product takes a tenth of the time of `masked_fill` on a CPU
    _check_range(labelled * counts, "label", num_labels, ignore_index)
    if not _are_in_range(predicted, num_labels):
        predicted = predicted * counts
        _check_range(predicted, "prediction", num_labels, ignore_index)
    return predicted


def _are_in_range(ids: torch.Tensor, num_labels: int) -> bool:
    if not ids.numel():
        return True
    low, high = ids.aminmax()  # one pass; comparing each id would take four
    return int(low) >= 0 and int(high) < num_labels


def _check_range(ids: torch.Tensor, what: str, num_labels: int, ignore_index: int) -> None:
    if _are_in_range(ids, num_labels):
        return
    outside = (ids < 0) | (ids >= num_labels)
    image = int(outside.nonzero()[0, 0])
    values = sorted(set(ids[outside].tolist()))[:5]
    raise UserError(
        f"{what.capitalize()} ids {values} in image {image} of the batch: there are {num_labels} "
        f"classes (0..{num_labels - 1}) and the ignore index is {ignore_index}."
    )


def as_array(values: torch.Tensor | NDArray[Any]) -> NDArray[Any]:
    return np.asarray(torch.as_tensor(values).cpu())


def as_counts(counts: Mask) -> Counts:
    return as_array(counts).astype(np.int64, copy=False)
