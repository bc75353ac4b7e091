"""Samples of streams, and of data sets that users have made: the same as any others, or refused."""

from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.utils.data import DataLoader
from transformers import SegformerImageProcessor

from hfseg import EvalSet, TrainSet, TrainTransform, TransformsConfig, UserError
from hfseg.data.samples import StreamingEvalSet, StreamingTrainSet

COLUMNS = datasets.Features(image=datasets.Image(), label=datasets.Image(), name=datasets.Value("string"))
PROCESSOR = SegformerImageProcessor(size={"height": 32, "width": 32})


def encode(image: Image.Image, **options: Any) -> dict[str, Any]:
    buffer = BytesIO()
    image.save(buffer, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def make(kind: str = "JPEG", count: int = 8) -> datasets.Dataset:
    """Rows in one coding; the sides are no multiples of 8."""
    rng, rows = np.random.default_rng(0), []
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"turned": {"format": "JPEG", "exif": exif}}.get(kind, {"format": kind})
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (13, 17, 3), np.uint8))
        image = coarse.resize((131, 101)).convert("L" if kind == "GIF" else "RGB")
        upright = image.size[::-1] if kind == "turned" else image.size
        label = Image.fromarray(rng.integers(0, 3, upright[::-1], np.uint8))
        rows.append({"image": encode(image, **options), "label": encode(label, format="PNG"), "name": f"{index}"})
    return datasets.Dataset.from_list(rows, features=COLUMNS)


def transform(scale: tuple[float, float]) -> TrainTransform:
    return TrainTransform(TransformsConfig(size=32, scale=scale), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("kind", ["JPEG", "turned", "PNG", "GIF"])
@pytest.mark.parametrize("scale", [(0.1, 0.1), (0.2, 0.5), (1.0, 1.0), (2.0, 2.0)])
def test_a_stream_gives_the_same_pixels(kind: str, scale: tuple[float, float]) -> None:
    data = make(kind)
    stream = {sample["name"]: sample for sample in StreamingTrainSet(data.to_iterable_dataset(), transform(scale), 3)}
    rows = TrainSet(data, transform(scale), 3)
    assert len(stream) == len(rows)
    for sample in map(rows.__getitem__, range(len(rows))):
        assert sample["pixel_values"].equal(stream[sample["name"]]["pixel_values"])
        assert sample["labels"].equal(stream[sample["name"]]["labels"])
    scored = zip(
        map(EvalSet(data, PROCESSOR).__getitem__, range(len(data))),
        StreamingEvalSet(data.to_iterable_dataset(), PROCESSOR),
        strict=True,
    )
    assert all(one["pixel_values"].equal(other["pixel_values"]) for one, other in scored)


@pytest.mark.parametrize("kind", ["torch", "numpy", "arrow"])
def test_a_format_changes_no_pixel(kind: str) -> None:
    data = make()
    plain, formatted = (EvalSet(rows, PROCESSOR)[2]["pixel_values"] for rows in (data, data.with_format(kind)))
    assert plain.equal(formatted)
    stream = data.to_iterable_dataset().with_format(kind)
    assert list(StreamingEvalSet(stream, PROCESSOR))[2]["pixel_values"].equal(plain)


def darken(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return batch | {"image": [Image.eval(image, lambda value: value // 2) for image in batch["image"]]}


@pytest.mark.parametrize("cache", [False, True])
def test_a_transform_is_refused_and_the_two_ways_on_work(cache: bool) -> None:
    data = make()
    with pytest.raises(UserError, match=r"has a transform .*Dataset\.map.*with_format\(None\)"):
        TrainSet(data.with_transform(darken), transform((1.0, 1.0)), cache=cache)
    with pytest.raises(UserError, match="has a transform"):
        EvalSet(data.with_transform(darken), PROCESSOR, cache=cache)
    plain = EvalSet(data, PROCESSOR, cache=cache)[0]["pixel_values"]
    removed = EvalSet(data.with_transform(darken).with_format(None), PROCESSOR, cache=cache)[0]["pixel_values"]
    stored = EvalSet(data.map(darken, batched=True), PROCESSOR, cache=cache)[0]["pixel_values"]
    assert removed.equal(plain)
    assert stored.mean() < plain.mean() - 0.1


def test_streams_without_types_are_read() -> None:
    """As `map` and generators leave them."""
    data = make("PNG")
    stream = datasets.IterableDataset.from_generator(lambda: iter(data))
    assert stream.features is None
    for one, other in zip(
        StreamingEvalSet(stream, PROCESSOR), map(EvalSet(data, PROCESSOR).__getitem__, range(8)), strict=True
    ):
        assert one["pixel_values"].equal(other["pixel_values"])
        assert one["labels"].equal(other["labels"])


@pytest.mark.parametrize(
    "make_set",
    [lambda rows: StreamingTrainSet(rows, transform((1.0, 1.0))), lambda rows: StreamingEvalSet(rows, PROCESSOR)],
)
def test_streams_that_give_no_sample_are_refused(make_set: Any) -> None:
    stream = make().to_iterable_dataset()
    for empty in (stream.take(0), stream.skip(8), stream.filter(lambda name: False, input_columns=["name"])):
        with pytest.raises(UserError, match="The stream is empty"):
            make_set(empty)
    with pytest.raises(UserError, match=r"no column 'name', only \['image', 'label'\]"):
        make_set(stream.remove_columns("name"))
    with pytest.raises(UserError, match=r"no column .*name"):
        make_set(datasets.IterableDataset.from_generator(lambda: iter(make().remove_columns("name"))))
    assert len(list(make_set(stream.take(3)))) == 3


def test_cells_without_a_value_are_named() -> None:
    plain = [
        dict(row)
        for row in make()
        .cast_column("image", datasets.Image(decode=False))
        .cast_column("label", datasets.Image(decode=False))
    ]
    for column, said in (
        ("image", "image of sample '2'"),
        ("label", "label map of sample '2'"),
        ("name", "has None as its name"),
    ):
        rows = datasets.Dataset.from_list([*plain[:2], plain[2] | {column: None}, *plain[3:]], features=COLUMNS)
        with pytest.raises(UserError, match=said):
            EvalSet(rows, PROCESSOR)[2]
        with pytest.raises(UserError, match=said):
            list(StreamingEvalSet(rows.to_iterable_dataset(), PROCESSOR))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_row_once_whatever_the_workers(workers: int) -> None:
    """Also where there are fewer files than workers."""
    stream = make().to_iterable_dataset(num_shards=2)
    loader = DataLoader(StreamingEvalSet(stream, PROCESSOR), batch_size=None, num_workers=workers)
    assert sorted(sample["name"] for sample in loader) == [str(k) for k in range(8)]
    assert torch.utils.data.get_worker_info() is None
