from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor, pipeline

import hfseg
from hfseg import LabelSet, SegMetrics, UserError
from hfseg.config import EvalConfig
from hfseg.inference import predict
from tests.builders import make_trainer, opinionated_model, tiny_model

PROCESSOR = SegformerImageProcessor(size={"height": 64, "width": 64})


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in ((40, 60), (70, 30))]


def test_paths_images_and_arrays_give_the_same_at_native_size(tmp_path: Path, labels: LabelSet) -> None:
    model, images = tiny_model(labels), pictures()
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    masks = predict(model, images, PROCESSOR)
    assert [mask.shape for mask in masks] == [(40, 60), (70, 30)]
    for other in (paths, [np.asarray(image) for image in images], [str(path) for path in paths]):
        assert all(map(np.array_equal, predict(model, other, PROCESSOR, batch_size=1), masks))
    assert np.array_equal(predict(model, images[0], PROCESSOR)[0], masks[0])


def test_probabilities(labels: LabelSet) -> None:
    masks, probabilities = predict(tiny_model(labels), pictures(), PROCESSOR, return_probabilities=True)
    for mask, values in zip(masks, probabilities, strict=True):
        assert values.shape == (3, *mask.shape)
        np.testing.assert_allclose(values.sum(0), 1, rtol=1e-5)
        assert np.array_equal(values.argmax(0), mask)


def test_equals_the_stock_pipeline(tmp_path: Path, labels: LabelSet) -> None:
    torch.manual_seed(3)
    model = tiny_model(labels)
    torch.nn.init.normal_(model.decode_head.classifier.weight)
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    segment = pipeline("image-segmentation", model=str(tmp_path))
    for image, mask in zip(pictures(), predict(loaded, pictures()), strict=True):
        parts = {part["label"]: np.asarray(part["mask"]) > 0 for part in segment(image)}
        agreement = np.mean(
            [np.mean(parts.get(name, 0) == (mask == index)) for index, name in labels.id2label.items()]
        )
        assert agreement > 0.999
        assert len(set(mask.flat)) > 1


@pytest.mark.parametrize(
    "options",
    [
        EvalConfig(mode="whole"),
        EvalConfig(mode="slide", crop=32, stride=20),
        EvalConfig(mode="slide", crop=32, stride=20, scales=(0.75, 1.25), flip=True),
        EvalConfig(scales=(0.75, 1.5), flip=True),
    ],
    ids=["whole", "slide", "slide-views", "resize-views"],
)
def test_modes_are_those_of_the_evaluation(tmp_path: Path, labels: LabelSet, options: EvalConfig) -> None:
    trainer = make_trainer(tmp_path, labels, opinionated_model(labels), evaluation=options)
    trainer.evaluate()
    rows = trainer.eval_dataset.rows
    images = [np.array(rows[index].pixels()) for index in range(len(rows))]
    masks, probabilities = predict(
        trainer.model, images, trainer.processing_class, return_probabilities=True, eval=options
    )
    metrics = SegMetrics(labels)
    metrics.update(masks, [rows[index].label for index in range(len(rows))])
    assert np.array_equal(metrics.confusion, trainer.compute_metrics.confusion)
    assert len(set(np.concatenate([mask.flatten() for mask in masks]).tolist())) > 1
    for mask, values in zip(masks, probabilities, strict=True):
        np.testing.assert_allclose(values.sum(0), 1, rtol=1e-4)
        assert np.array_equal(values.argmax(0), mask)
    plain = SegMetrics(labels)
    plain.update(predict(trainer.model, images, trainer.processing_class), [rows[i].label for i in range(len(rows))])
    assert not np.array_equal(plain.confusion, metrics.confusion)  # the mode matters


def test_a_processor_that_does_not_resize_takes_images_as_they_are(labels: LabelSet) -> None:
    model, images = tiny_model(labels), pictures()
    native = SegformerImageProcessor(do_resize=False)
    whole = predict(model, images, PROCESSOR, eval=EvalConfig(mode="whole"))
    assert all(map(np.array_equal, predict(model, images, native), whole))


def test_what_cannot_be_read_is_named(tmp_path: Path, labels: LabelSet) -> None:
    model = tiny_model(labels)
    (tmp_path / "no.jpg").write_text("text")
    with pytest.raises(UserError, match=r"no\.jpg cannot be read"):
        predict(model, tmp_path / "no.jpg", PROCESSOR)
    with pytest.raises(UserError, match="uint8"):
        predict(model, np.zeros((4, 4, 3)), PROCESSOR)
    with pytest.raises(UserError, match="pass its image `processor`"):
        predict(model, pictures())


def test_a_loaded_model_predicts_what_its_folder_does(small_runs: dict[str, Path]) -> None:
    for run in small_runs.values():
        model = hfseg.load_model(run)
        assert not model.training
        expected = predict(str(run), pictures())
        assert all(map(np.array_equal, predict(model, pictures()), expected))
        assert all(map(np.array_equal, predict(hfseg.load_model(str(run / "model")), pictures()), expected))


def test_arguments_that_are_missing_or_swapped_are_said(tmp_path: Path, labels: LabelSet) -> None:
    model, photos = tiny_model(labels), tmp_path / "photos"
    photos.mkdir()
    pictures()[0].save(photos / "a.jpg")
    for arguments, said in (
        (
            (str(photos),),
            f"no images to predict. '{photos}' is taken for the model. Write hfseg.predict(model, images)",
        ),
        ((model,), "There are no images to predict. Write"),
        ((photos / "a.jpg", model), "The model comes first; got an object of type PosixPath"),
        ((pictures(), "runs/x"), "The model comes first; got an object of type list"),
        ((photos / "a.jpg", "runs/x"), "The model comes first; got the image"),
        ((model, photos), "hfseg.predict_images(folder, model, output)"),
    ):
        with pytest.raises(UserError) as error:
            predict(*arguments)
        assert said in str(error.value)


def test_a_folder_that_is_no_model_names_the_nearest(tmp_path: Path, small_runs: dict[str, Path]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(small_runs["fcn"])
    (tmp_path / "runs" / "quickstarts").mkdir()
    right = f"Did you mean `{tmp_path / 'runs' / 'quickstart'}`?"
    for wrong in ("quikstart", "quickstarts"):
        for attempt in (hfseg.load_model, lambda folder: predict(folder, pictures())):
            with pytest.raises(UserError) as error:
                attempt(tmp_path / "runs" / wrong)
            assert right in str(error.value)
            assert wrong in str(error.value)
    with pytest.raises(UserError, match=r"is a folder without a model: it has no config\.json\.$"):
        hfseg.load_model(tmp_path)
