import pytest
import torch
import torch.nn.functional as F

from hfseg import UserError
from hfseg.config import LossConfig
from hfseg.models import loss as loss_module
from hfseg.models import segmentation_loss


def reference(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What stock SegFormer computes, summed."""
    upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(upsampled, labels, ignore_index=255, reduction="sum")


def random_case(num_labels: int, small: tuple[int, int], large: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, num_labels, (2, *large))
    labels[0, : large[0] // 3] = 255
    return torch.randn(2, num_labels, *small, dtype=torch.float64, requires_grad=True), labels


# up by 4, by a fraction, not at all, down, from one row
SIZES = [((8, 6), (32, 24)), ((7, 9), (25, 31)), ((5, 5), (5, 5)), ((12, 9), (7, 4)), ((1, 3), (9, 8))]


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("strip_elements", [1, 300, 1 << 20])
def test_equals_interpolate_and_cross_entropy(
    small: tuple[int, int], large: tuple[int, int], strip_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "BAND_ELEMENTS_CPU", strip_elements)
    logits, labels = random_case(3, small, large)
    expected = reference(logits, labels)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    ours = segmentation_loss(logits, labels)
    (gradient,) = torch.autograd.grad(3 * ours.total, logits)
    torch.testing.assert_close(ours.total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, 3 * expected_gradient, rtol=1e-10, atol=1e-12)
    assert ours.num_valid == (labels != 255).sum()


def test_gradcheck() -> None:
    logits, labels = random_case(4, (3, 4), (10, 13))
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, labels).total, (logits,))


def test_confusion_is_that_of_the_upsampled_argmax() -> None:
    logits, labels = random_case(5, (8, 6), (32, 24))
    upsampled = F.interpolate(logits, size=(32, 24), mode="bilinear", align_corners=False)
    expected = torch.zeros(2, 6, 5, dtype=torch.int64)
    for image in range(2):
        for label, predicted in zip(labels[image].flatten(), upsampled[image].argmax(0).flatten(), strict=True):
            expected[image, 5 if label == 255 else label, predicted] += 1
    assert segmentation_loss(logits.detach(), labels).confusion.equal(expected)


def test_nothing_valid_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    result = segmentation_loss(logits, torch.full((1, 16, 16), 255))
    assert result.mean == 0
    assert torch.autograd.grad(result.mean, logits)[0].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    logits, labels = random_case(3, (8, 6), (32, 24))
    half = logits.detach().to(dtype).requires_grad_()
    result = segmentation_loss(half, labels)
    assert result.total.dtype == torch.float32
    torch.testing.assert_close(result.total, segmentation_loss(half.float(), labels).total)
    assert torch.autograd.grad(result.total, half)[0].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [LossConfig(), LossConfig(dice=1.0, label_smoothing=0.1), LossConfig(ohem=0.7)],
    ids=["ce", "dice", "ohem"],
)
def test_half_precision_neither_overflows_nor_loses(dtype: torch.dtype, options: LossConfig) -> None:
    """Logits of 1e4, whose sum over pixels fp16 cannot hold, against float64; inside autocast, as in a training."""
    logits, labels = random_case(3, (8, 6), (32, 24))
    half = (1e4 * logits.detach()).to(dtype).requires_grad_()
    wide = half.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = segmentation_loss(half, labels, options=options)
    expected = segmentation_loss(wide, labels, options=options)
    assert expected.total > torch.finfo(torch.float16).max
    torch.testing.assert_close(result.total.double(), expected.total, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(result.total, half)
    (expected_gradient,) = torch.autograd.grad(expected.total, wide)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    step = torch.finfo(dtype).eps * float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=torch.finfo(dtype).eps, atol=step)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [LossConfig(), LossConfig(dice=1.0), LossConfig(ohem=0.7, label_smoothing=0.1)])
def test_nothing_valid_in_half_precision(dtype: torch.dtype, options: LossConfig) -> None:
    logits = (1e4 * torch.randn(1, 3, 4, 4)).to(dtype).requires_grad_()
    result = segmentation_loss(logits, torch.full((1, 16, 16), 255), options=options)
    assert result.mean == 0
    assert torch.autograd.grad(result.mean, logits)[0].abs().max() == 0


def reference_dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    valid = labels != 255
    probabilities = upsampled.softmax(1).movedim(1, -1)[valid]
    one_hot = F.one_hot(labels[valid], logits.shape[1]).to(logits.dtype)
    dice = 2 * (probabilities * one_hot).sum(0) / (probabilities.sum(0) + one_hot.sum(0))
    return valid.sum() * (1 - dice)[one_hot.sum(0) > 0].mean()


@pytest.mark.parametrize("strip_elements", [300, 1 << 20])
def test_options(strip_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "BAND_ELEMENTS_CPU", strip_elements)
    logits, labels = random_case(4, (8, 6), (32, 24))
    labels[labels == 3] = 2  # a class that is labelled nowhere
    upsampled = F.interpolate(logits, size=(32, 24), mode="bilinear", align_corners=False)
    weights = (0.5, 1.0, 3.0, 1.0)
    plain = F.cross_entropy(upsampled, labels, ignore_index=255, reduction="none")
    cases = {
        LossConfig(class_weights=weights): F.cross_entropy(
            upsampled, labels, torch.tensor(weights).double(), ignore_index=255, reduction="sum"
        ),
        LossConfig(label_smoothing=0.1): F.cross_entropy(
            upsampled, labels, ignore_index=255, reduction="sum", label_smoothing=0.1
        ),
        LossConfig(ohem=0.3): plain[plain.detach().neg().exp() < 0.3].sum(),
        LossConfig(dice=2.0): plain.sum() + 2 * reference_dice(logits, labels),
    }
    for options, expected in cases.items():
        ours = segmentation_loss(logits, labels, options=options)
        torch.testing.assert_close(ours.total, expected, rtol=1e-9, atol=0)
        gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours.total, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
        empty = segmentation_loss(logits, torch.full_like(labels, 255), options=options)
        assert empty.mean == 0
        assert torch.autograd.grad(empty.mean, logits)[0].abs().max() == 0


def test_labels_that_are_not_integers() -> None:
    logits, labels = random_case(3, (4, 4), (16, 16))
    with pytest.raises(UserError, match=r"integer class ids .* got torch\.float32"):
        segmentation_loss(logits, labels.float())


def test_wrong_number_of_class_weights() -> None:
    logits, labels = random_case(3, (8, 6), (32, 24))
    with pytest.raises(UserError, match="2 values for 3 classes"):
        segmentation_loss(logits, labels, options=LossConfig(class_weights=(1.0, 2.0)))


def test_no_gradient_is_made_where_none_is_needed() -> None:
    logits, labels = random_case(3, (8, 6), (32, 24))
    with torch.no_grad():
        assert not segmentation_loss(logits, labels).total.requires_grad
