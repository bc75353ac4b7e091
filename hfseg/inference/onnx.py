"""Export to ONNX, and the check that the file computes what the model computes."""

import json
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
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
from hfseg.files import writing
from hfseg.models import inference_copy, load_trained, provenance_of

try:
    import onnx
    import onnxruntime
    import onnxscript
    from onnxruntime.capi import onnxruntime_pybind11_state as refusals
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

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

    Args:
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


class ExportForm(nn.Module):
    """What is exported: pixels (B, 3, H, W) to logits (B, K, h, w), and where asked to class ids (B, H, W)."""

    def __init__(self, model: PreTrainedModel, with_ids: bool) -> None:
        super().__init__()
        self.network = inference_copy(model) or model
        self.with_ids = with_ids

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = self.network(pixel_values=pixel_values)["logits"]
        if not self.with_ids:
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
    check_destination(path)
    model, processor = load_trained(source, trust_remote_code)
    check_beside(path, processor, source)
    network = ExportForm(model, argmax).eval()
    with writing(path), tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as scratch:
        unchecked = Path(scratch) / path.name
        start = time.perf_counter()
        write_onnx(network, unchecked, metadata(model, processor))
        exported = time.perf_counter()
        cases = check_parity(network, unchecked, own_size(processor))
        report = describe(source, argmax, cases) | {
            "export_seconds": round(exported - start, 1),
            "parity_seconds": round(time.perf_counter() - exported, 1),
        }
        require_parity(cases, source)
        (Path(scratch) / "report").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        processor.save_pretrained(scratch)
        (Path(scratch) / "report").replace(path.with_suffix(".json"))
        (Path(scratch) / "preprocessor_config.json").replace(path.parent / "preprocessor_config.json")
        unchecked.replace(path)  # last: where it is, all of it is
    return report


def check_destination(path: Path) -> None:
    """Raises UserError where no ONNX file can be written at `path`; makes its folder."""
    if path.suffix != ".onnx":
        raise UserError(f"--onnx {path} must end in .onnx.")
    if path.is_dir():
        raise UserError(f"--onnx {path} is a folder. Give the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"--onnx {path}: the folder {path.parent} cannot be written to ({error}).") from error


def check_beside(path: Path, processor: BaseImageProcessor, source: str) -> None:
    """Raises UserError where a file that is no export's, or another model's image processor, would be overwritten."""
    beside = path.parent / "preprocessor_config.json"
    if beside.exists() and read_json(beside) != json.loads(processor.to_json_string()):
        raise UserError(f"{beside} is not the image processor of {source}. Export into another folder.")
    report = path.with_suffix(".json")
    held = read_json(report)
    if report.exists() and not (isinstance(held, dict) and "verdict" in held):
        raise UserError(f"{report} is not the report of an export, and would be overwritten. Choose another name.")


def read_json(path: Path) -> Any:
    """What the file holds; None where that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def metadata(model: PreTrainedModel, processor: BaseImageProcessor) -> dict[str, str]:
    """What a program without Python needs to know to use the file, as JSON values."""
    config = model.config.to_dict()
    settings = json.loads(processor.to_json_string())
    values = {
        "names": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "ignore_index": config.get("semantic_loss_ignore_index"),
        "temperature": provenance_of(model.config).get("temperature"),
    } | {key: settings.get(key) for key in ("image_mean", "image_std", "rescale_factor", "do_resize", "size")}
    return {name: json.dumps(value) for name, value in values.items()}


def own_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Height and width that the image processor makes, where it makes one size."""
    size = json.loads(processor.to_json_string()).get("size") or {}
    return (size["height"], size["width"]) if {"height", "width"} <= size.keys() else None


def write_onnx(network: ExportForm, path: Path, properties: dict[str, str]) -> None:
    """Traces the model with dynamic sizes and writes one file.

    Raises:
        UserError: torch cannot export this model.
    """
    outputs = ["logits", "ids"] if network.with_ids else ["logits"]
    sizes = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, 96, 128),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixel_values"],
                output_names=outputs,
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def open_session(path: Path) -> Any:
    """The file in onnxruntime; raises ParityError where it does not take it."""
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (refusals.Fail, refusals.InvalidGraph, refusals.InvalidProtobuf, refusals.NotImplemented) as error:
        raise ParityError(f"onnxruntime does not take the exported file: {error}") from error


@torch.no_grad()
def check_parity(network: ExportForm, path: Path, size: tuple[int, int] | None = None) -> list[ParityCase]:
    """Compares onnxruntime with torch at every combination of SIZES and BATCH_SIZES, and at one more size.

    Args:
        network: what was exported.
        path: of the ONNX file.
        size: height and width of one more case, of batch 1.

    Raises:
        ParityError: onnxruntime does not run the file.
    """
    session = open_session(path)
    shapes = [(batch_size, *side) for side, batch_size in product(SIZES, BATCH_SIZES)]
    shapes += [(1, *size)] if size is not None else []
    generator = torch.Generator().manual_seed(0)
    cases = []
    for batch_size, height, width in shapes:
        pixel_values = torch.randn(batch_size, 3, height, width, generator=generator)
        try:
            found = session.run(None, {"pixel_values": pixel_values.numpy()})
        except (refusals.Fail, refusals.InvalidArgument, refusals.RuntimeException) as error:
            shape = tuple(pixel_values.shape)
            raise ParityError(f"The exported file fails in onnxruntime on pixels of shape {shape}: {error}") from error
        expected = [output.numpy() for output in network(pixel_values)]
        cases.append(ParityCase(batch_size, height, width, *differences(expected, found)))
    return cases


def differences(expected: list[NDArray[Any]], found: list[NDArray[Any]]) -> tuple[float, int]:
    """Of logits (B, K, h, w) and ids (B, H, W): the largest scaled difference, and pixels of another class.

    Another class is no difference where the logits of both classes are closer than the difference itself allows.
    """
    logits, others = expected[0].astype(np.float64), found[0].astype(np.float64)
    if logits.shape != others.shape or not (np.isfinite(logits).all() and np.isfinite(others).all()):
        return float("nan"), logits.size
    difference = float(np.abs(logits - others).max())
    scaled = LARGEST_LOGIT * difference / max(float(np.abs(logits).max()), np.finfo(np.float64).tiny)
    num_different = count_different(logits, others.argmax(axis=1), 2 * difference)
    if len(expected) > 1:
        large = F.interpolate(torch.from_numpy(logits), size=expected[1].shape[-2:], mode="bilinear").numpy()
        num_different += count_different(large, found[1], 2 * difference + 1e-6 * float(np.abs(logits).max()))
    return scaled, num_different


def count_different(logits: NDArray[Any], ids: NDArray[Any], margin: float) -> int:
    """Pixels whose class has a logit that is lower than the highest by more than `margin`."""
    chosen = np.take_along_axis(logits, ids[:, None], axis=1)[:, 0]
    return int((logits.max(axis=1) - chosen > margin).sum())


def require_parity(cases: list[ParityCase], source: str) -> None:
    """Raises ParityError, with every case that is not equal."""
    wrong = [case for case in cases if not case.is_equal]
    if wrong:
        lines = [
            f"  batch {case.batch_size}, {case.height} x {case.width}: logits differ by {case.max_difference:.1e}, "
            f"{case.num_different} pixels have another class"
            for case in wrong
        ]
        raise ParityError(
            f"{source}: the exported file computes something else than the model in {len(wrong)} of {len(cases)} "
            f"cases (allowed is {TOLERANCE:g} with the largest logit scaled to {LARGEST_LOGIT:g}). Nothing was "
            "written.\n" + "\n".join(lines)
        )


def describe(source: str, argmax: bool, cases: list[ParityCase]) -> dict[str, Any]:
    """What `x.json` says."""
    return {
        "model": Path(source).name if Path(source).exists() else source,
        "verdict": "equal",
        "tolerance": TOLERANCE,
        "measure": f"largest |difference| of logits, scaled so that the largest |logit| is {LARGEST_LOGIT:g}",
        "max_difference": max(case.max_difference for case in cases),
        "cases": [vars(case) for case in cases],
        "opset": OPSET,
        "outputs": ["logits", "ids"] if argmax else ["logits"],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
