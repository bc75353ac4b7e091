"""Export to ONNX, and the check that the file computes what the model computes."""

import json
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.errors import UserError
from hfseg.files import write_json, write_text, writing, written_whole
from hfseg.inference.predictor import with_processor
from hfseg.labels import LabelSet
from hfseg.models import class_logits, inference_copy, provenance_of

try:
    import onnx
    import onnxruntime
    import onnxscript
    from onnxruntime.capi import onnxruntime_pybind11_state as ort
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None
    REFUSALS = (
        ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.InvalidProtobuf, ort.NotImplemented, ort.RuntimeException,
    )  # fmt: skip

OPSET = 18  # all that is needed, and read by every onnxruntime since 1.14 (2023)
BATCH_SIZES = (1, 2, 5)
SIZES = ((64, 96), (97, 131), (150, 75))  # height and width; multiples of 32, odd, and neither
# Float32 sums in another order differ with the size of the numbers, so logits are compared as if the largest were 10.
LARGEST_LOGIT = 10.0
TOLERANCE = 1e-4


class ParityError(RuntimeError):
    """The exported file computes something else than the model."""


@dataclass(frozen=True)
class ParityCase:
    """One comparison of onnxruntime with torch on the same pixels.

    Attributes:
        batch_size, height, width: of the pixels.
        max_difference: of the logits, scaled so that the largest is 10; NaN where either is not finite.
        num_different: pixels with another class although it was no tie.
    """

    batch_size: int
    height: int
    width: int
    max_difference: float
    num_different: int

    @property
    def is_equal(self) -> bool:
        return self.max_difference < TOLERANCE and self.num_different == 0  # false for NaN

    def __str__(self) -> str:
        return (
            f"  batch {self.batch_size}, {self.height} x {self.width}: logits differ by {self.max_difference:.1e}, "
            f"{self.num_different} pixels have another class"
        )


class ExportForm(nn.Module):
    """What is exported: pixels (B, 3, H, W) to logits (B, K, h, w), and where asked to class ids (B, H, W)."""

    def __init__(self, model: PreTrainedModel, with_ids: bool) -> None:
        super().__init__()
        self.network = inference_copy(model) or model
        self.outputs = ["logits", "ids"] if with_ids else ["logits"]

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = class_logits(self.network(pixel_values=pixel_values))
        if len(self.outputs) == 1:
            return (logits,)
        large = F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)
        return logits, large.argmax(dim=1)


def export_onnx(
    source: str, path: str | Path, argmax: bool = False, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Writes a model as ONNX, and beside it what is needed to use it and the proof that it is right.

    The input `pixel_values` (B, 3, H, W) float32 has dynamic batch, height and width; the output `logits` is
    (B, K, h, w) at the model's own resolution, a quarter (SegFormer) or an eighth (FCN) of the input. With `argmax`
    there is a second output `ids` (B, H, W) int64: the class of every input pixel, after bilinear upsampling. The
    opset is 18. The file's metadata has `names`, `ignore_index`, `image_mean`, `image_std`, `rescale_factor`,
    `temperature` and `size` as JSON.

    Beside `x.onnx` there are `x.json`, with the differences to torch in onnxruntime at several sizes and batch sizes,
    and `preprocessor_config.json`. Where the check fails, nothing is written.

    Args:
        source: a folder (of a run, or with a model) or a Hub id.
        path: of the file, ending in .onnx.
        argmax: add the output `ids`.
        trust_remote_code: run the code that comes with the model, if there is some.

    Returns:
        What is in `x.json`.

    Raises:
        UserError: the extra is not installed, there is no such model, the file cannot be written there.
        ParityError: onnxruntime computes something else than torch.
    """
    if MISSING is not None:
        raise UserError(f"Export needs further packages ({MISSING}): pip install 'hfseg[onnx]'.")
    path = Path(path)
    if path.suffix != ".onnx" or path.is_dir():
        raise UserError(f"--onnx {path} must end in .onnx, and be no folder.")
    model, processor = with_processor(source, trust_remote_code=trust_remote_code)
    check_beside(path, processor, source)
    network = ExportForm(model, argmax).eval()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unchecked:  # which gets its name last: where it is, all of it is
        start = time.perf_counter()
        write_onnx(network, unchecked, metadata(model, processor))
        exported = time.perf_counter()
        cases = check_parity(network, unchecked, own_size(processor))
        if wrong := [case for case in cases if not case.is_equal]:
            raise ParityError(
                f"{source}: the exported file computes something else than the model in {len(wrong)} of {len(cases)} "
                f"cases (allowed is {TOLERANCE:g} with the largest logit scaled to {LARGEST_LOGIT:g}). Nothing was "
                "written.\n" + "\n".join(map(str, wrong))
            )
        report = {
            "model": Path(source).name if Path(source).exists() else source,
            "verdict": "equal",
            "tolerance": TOLERANCE,
            "measure": f"largest |difference| of logits, scaled so that the largest |logit| is {LARGEST_LOGIT:g}",
            "max_difference": max(case.max_difference for case in cases),
            "cases": [vars(case) for case in cases],
            "opset": OPSET,
            "outputs": network.outputs,
            "versions": {"python": platform.python_version(), "torch": torch.__version__}
            | {package.__name__: package.__version__ for package in (onnx, onnxscript, onnxruntime)},
            "export_seconds": round(exported - start, 1),
            "parity_seconds": round(time.perf_counter() - exported, 1),
        }
        write_json(path.with_suffix(".json"), report)
        write_text(path.with_name("preprocessor_config.json"), processor.to_json_string())
    return report


def check_beside(path: Path, processor: BaseImageProcessor, source: str) -> None:
    """Raises UserError where a file that is no export's, or another model's image processor, would be overwritten."""
    beside, report = path.with_name("preprocessor_config.json"), path.with_suffix(".json")
    if beside.exists() and _read_json(beside) != json.loads(processor.to_json_string()):
        raise UserError(f"{beside} is not the image processor of {source}. Export into another folder.")
    if report.exists() and "verdict" not in (_read_json(report) or {}):
        raise UserError(f"{report} is not the report of an export, and would be overwritten. Choose another name.")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def metadata(model: PreTrainedModel, processor: BaseImageProcessor) -> dict[str, str]:
    """What a program without Python needs to know to use the file, as JSON values."""
    settings = json.loads(processor.to_json_string())
    values = {
        "names": LabelSet.of_config(model.config).names,
        "ignore_index": model.config.to_dict().get("semantic_loss_ignore_index"),
        "temperature": provenance_of(model.config).get("temperature"),
    } | {key: settings.get(key) for key in ("image_mean", "image_std", "rescale_factor", "do_resize", "size")}
    return {name: json.dumps(value) for name, value in values.items()}


def own_size(processor: BaseImageProcessor) -> list[tuple[int, int]]:
    """Height and width that the image processor makes; nothing where it does not make one size."""
    size = json.loads(processor.to_json_string()).get("size") or {}
    return [(size["height"], size["width"])] if {"height", "width"} <= size.keys() else []


def write_onnx(network: ExportForm, path: Path, properties: dict[str, str]) -> None:
    """Traces the model with dynamic sizes and writes one file; raises UserError where torch cannot export it."""
    sizes = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, 96, 128),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixel_values"],
                output_names=network.outputs,
                dynamic_shapes={"pixel_values": sizes},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"{type(network.network).__name__} cannot be exported with dynamic sizes by torch {torch.__version__}; "
            f"SegFormer and FCN can. {str(error).strip().splitlines()[0]}"
        ) from error
    assert program is not None, "the exporter gives a program where it gets no file"
    program.model.metadata_props.update(properties)
    program.save(str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks about its own optimiser."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(previous)


@torch.no_grad()
def check_parity(network: ExportForm, path: Path, more_sizes: Sequence[tuple[int, int]] = ()) -> list[ParityCase]:
    """Compares onnxruntime with torch at every combination of SIZES and BATCH_SIZES, and one by one at more sizes.

    Raises:
        ParityError: onnxruntime does not take or does not run the file.
    """
    shapes = [(batch_size, 3, *size) for size, batch_size in product(SIZES, BATCH_SIZES)]
    shapes += [(1, 3, *size) for size in more_sizes]
    generator = torch.Generator().manual_seed(0)
    cases = []
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for shape in shapes:
            pixel_values = torch.randn(shape, generator=generator)
            found = session.run(None, {"pixel_values": pixel_values.numpy()})
            expected = [output.numpy() for output in network(pixel_values)]
            cases.append(ParityCase(shape[0], *shape[2:], *differences(expected, found)))
    except REFUSALS as error:
        done = f"on pixels of shape {shapes[len(cases)]}"
        raise ParityError(f"onnxruntime does not take the exported file {done}: {error}") from error
    return cases


def differences(expected: list[NDArray[Any]], found: list[NDArray[Any]]) -> tuple[float, int]:
    """Of logits (B, K, h, w) and ids (B, H, W): the largest scaled difference, and pixels of another class.

    Another class is no difference where the logits of both classes are closer than the difference itself allows.
    """
    logits, others = expected[0].astype(np.float64), found[0].astype(np.float64)
    if logits.shape != others.shape or not (np.isfinite(logits).all() and np.isfinite(others).all()):
        return float("nan"), logits.size
    difference, largest = float(np.abs(logits - others).max()), float(np.abs(logits).max())
    num_different = count_different(logits, others.argmax(axis=1), 2 * difference)
    if len(expected) > 1:
        large = F.interpolate(torch.from_numpy(logits), size=expected[1].shape[-2:], mode="bilinear").numpy()
        num_different += count_different(large, found[1], 2 * difference + 1e-6 * largest)
    return LARGEST_LOGIT * difference / max(largest, np.finfo(np.float64).tiny), num_different


def count_different(logits: NDArray[Any], ids: NDArray[Any], margin: float) -> int:
    """Pixels whose class has a logit that is lower than the highest by more than `margin`."""
    chosen = np.take_along_axis(logits, ids[:, None], axis=1)[:, 0]
    return int((logits.max(axis=1) - chosen > margin).sum())
