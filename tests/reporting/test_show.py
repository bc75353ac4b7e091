"""`hfseg.show`: what is drawn where, and what is refused by name."""

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor

import hfseg
from hfseg import LabelSet, UserError
from hfseg.inference import predict
from hfseg.reporting import colour_overlay
from tests.builders import tiny_model

LABELS = LabelSet(["a", "b", "c"])
PROCESSOR = SegformerImageProcessor(size={"height": 64, "width": 64})


def pictures(*shapes: tuple[int, int]) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


def maps(*shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.choice([0, 2, 255], shape).astype(np.uint8) for shape in shapes]


def drawn(figure: Any) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def test_each_image_is_beside_its_mask_in_the_classes_colours(tmp_path: Path) -> None:
    shapes = (30, 40), (50, 20), (10, 10)
    images, masks = pictures(*shapes), maps(*shapes)
    found = hfseg.show(images, masks, LABELS)
    cells = drawn(found)
    assert len(cells) == 6
    for number in range(3):
        assert np.array_equal(cells[2 * number], images[number])
        assert np.array_equal(cells[2 * number + 1], colour_overlay(images[number], masks[number], LABELS))
    assert legend(found) == ["a", "c"]  # those that occur, and not the ignore index
    for number in range(3):
        images[number].save(tmp_path / f"{number}.png")
        Image.fromarray(masks[number]).save(tmp_path / f"m{number}.png")
    for other_images, other_masks in (
        ([np.asarray(image) for image in images], [torch.as_tensor(mask) for mask in masks]),
        ([tmp_path / f"{n}.png" for n in range(3)], [str(tmp_path / f"m{n}.png") for n in range(3)]),
        (images, [Image.fromarray(mask) for mask in masks]),
    ):
        assert all(map(np.array_equal, drawn(hfseg.show(other_images, other_masks, LABELS)), cells))
    (alone,) = drawn(hfseg.show(tmp_path / "0.png"))
    assert np.array_equal(alone, images[0])
    assert [axes.get_xlabel() for axes in hfseg.show([tmp_path / "0.png"], masks[:1]).axes] == ["0.png", ""]


def test_classes_come_from_a_model_from_names_or_from_the_ids(labels: LabelSet) -> None:
    (image,), (mask,) = pictures((30, 40)), maps((30, 40))
    model = tiny_model(labels)
    prediction = predict(model, image, PROCESSOR)[0]
    assert set(legend(hfseg.show(image, prediction, model))) <= set(labels.names)
    assert legend(hfseg.show(image, mask, model)) == ["pet", "boundary"]  # 255 is the model's ignore index
    assert legend(hfseg.show(image, mask, {0: "x", 1: "y", 2: "z"})) == ["x", "z"]
    assert legend(hfseg.show(image, mask)) == ["0", "2"]
    assert legend(hfseg.show(image, np.full((30, 40), 255))) == []


def test_large_images_are_drawn_small_with_thin_classes_in_the_legend() -> None:
    image, mask = Image.new("RGB", (3000, 2000)), np.zeros((2000, 3000), np.uint8)
    mask[:, 1500:] = 2
    mask[:, 7] = 1
    figure = hfseg.show(image, mask, LABELS)
    assert {cell.shape for cell in drawn(figure)} == {(427, 640, 3)}
    assert legend(figure) == ["a", "b", "c"]
    colours = set(map(tuple, drawn(figure)[1][:, 100:].reshape(-1, 3).tolist()))
    assert len(colours) == 2, "no class between the classes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((pictures((30, 40), (50, 20)), maps((30, 40), (20, 50)), LABELS),
         r"Mask 1 has shape \(20, 50\) and its image \(50, 20\)"),
        ((pictures((30, 40)), maps((30, 40), (30, 40))), "1 images and 2 masks"),
        (([],), "0 images"),
        ((pictures((4, 4)), [np.full((4, 4), 7)], LABELS), r"Mask 0 has the ids \[7\], which are neither one of"),
        ((pictures((4, 4)), [np.zeros((4, 4))]), r"Mask 0 is float64 of shape \(4, 4\)"),
        ((pictures((4, 4)), [np.zeros((4, 4, 3), int)]), r"Mask 0 is int64 of shape \(4, 4, 3\)"),
        ((pictures((4, 4)), ["nowhere.png"]), "nowhere.png is missing"),
        (("nowhere.jpg",), "nowhere.jpg is missing"),
        ((np.zeros((4, 4)),), "An image array must be uint8"),
        ((pictures((4, 4)), maps((4, 4)), {1: "a"}), "give a LabelSet, a model, or an `id2label`"),
        ((pictures((4, 4)), maps((4, 4)), ["a", "b"]), "give a LabelSet, a model, or an `id2label`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        hfseg.show(*arguments)


def test_a_figure_shows_itself_and_pyplot_knows_nothing_of_it() -> None:
    code = (
        "import sys, hfseg, numpy as np\n"
        "figure = hfseg.show(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), int))\n"
        "assert figure._repr_png_().startswith(b'\\x89PNG')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
