import pytest
import torch
from transformers import SegformerImageProcessor

from hfseg import DataConfig, EvalSet, LabelSet, SegCollator, UserError, load_dataset


def sample(label: torch.Tensor) -> dict:
    return {"pixel_values": torch.zeros(3, 8, 8), "labels": label, "name": "some_pet_7"}


def test_native_sizes_survive_padding(labels: LabelSet) -> None:
    batch = SegCollator(labels)([sample(torch.ones(3, 5).long()), sample(torch.zeros(4, 2).long())])
    assert batch["labels"].shape == (2, 4, 5)
    assert batch["sizes"].tolist() == [[3, 5], [4, 2]]
    assert (batch["labels"] == 255).sum() == 2 * 20 - 15 - 8


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (torch.full((2, 2), 3), "label ids [3]"),
        (torch.full((2, 2), -1), "label ids [-1]"),
        (torch.zeros(2, 2), "torch.float32"),
        (torch.zeros(1, 2, 2).long(), "(1, 2, 2)"),
    ],
)
def test_wrong_labels_are_named(labels: LabelSet, label: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError) as error:
        SegCollator(labels)([sample(torch.zeros(2, 2).long()), sample(label)])
    assert "'some_pet_7'" in str(error.value)
    assert said in str(error.value)


def test_evaluation_leaves_labels_alone() -> None:
    config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 16, "num_test": 4, "size": 64})
    data, _ = load_dataset(config)
    row = data["test"][0]
    item = EvalSet(data["test"], SegformerImageProcessor(size={"height": 32, "width": 48}))[0]
    assert item["pixel_values"].shape == (3, 32, 48)
    assert tuple(item["labels"].shape) == (row["image"].height, row["image"].width)
