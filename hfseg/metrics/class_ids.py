"""Class ids at full size from small logits, without upsampling all of them."""

import torch
import torch.nn.functional as F

CHUNK_ELEMENTS = 1 << 20  # upsampled logits at a time: 4 MB, which stay in a core's cache


def with_background(logits: torch.Tensor) -> torch.Tensor:
    """Logits of two classes from those of a model with one output; others as they are.

    The softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)), its cross-entropy the binary one, its argmax sigmoid(z) at
    0.5, and bilinear upsampling keeps the 0: so everything after this holds for one output as for many.

    Args:
        logits: (B, K, h, w), any float type.

    Returns:
        (B, max(K, 2), h, w).
    """
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def upsampled_class_ids(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The class of each pixel after bilinear upsampling (`align_corners=False`).

    A pixel lies between four small ones and its logits are a convex combination of theirs: where all four have the
    same largest class, so has the pixel. Only the others, at the regions' contours, are upsampled. It equals
    `interpolate(...).argmax(1)`, but for pixels whose two largest logits differ by no more than float32 rounds (some
    1e-7 of them), which logits in half precision have now and then: there `interpolate` itself answers differently
    from one memory layout to the next.

    Args:
        logits: (B, K, h, w), any float type.
        height: of the result, in pixels.
        width: likewise.

    Returns:
        ids (B, height, width), uint8 up to 256 classes and int64 beyond.
    """
    num_labels, small_height, small_width = logits.shape[1:]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    kind = torch.uint8 if num_labels <= 256 else torch.int64
    # On a GPU, finding the contours would wait for it, and upsampling everything costs little.
    if logits.is_cuda or height % small_height or width % small_width:
        upsampled = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        return upsampled.max(1).indices.to(kind)
    return torch.stack([_image_ids(image, height // small_height, width // small_width, kind) for image in logits])


def _image_ids(logits: torch.Tensor, rows: int, columns: int, kind: torch.dtype) -> torch.Tensor:
    """Ids (h * rows, w * columns) of (K, h, w), cell by cell: a cell has a small pixel in each of its corners."""
    num_labels, height, width = logits.shape
    small = logits.max(0).indices.to(kind)  # ten times as fast as argmax on a CPU
    # outside of the image its border goes on, hence one cell more than there are pixels
    top, bottom = _neighbours(height, logits.device)
    left, right = _neighbours(width, logits.device)
    corners = [small[vertical][:, side] for vertical in (top, bottom) for side in (left, right)]
    uniform = (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
    ids = corners[0][:, None, :, None].repeat(1, rows, 1, columns)  # (h + 1, rows, w + 1, columns)
    flat = logits.reshape(num_labels, -1)
    weights_down = _weights(rows, logits).view(rows, 1, 1, 1)
    weights_right = _weights(columns, logits).view(columns, 1, 1)
    for cells in (~uniform).nonzero().split(max(1, CHUNK_ELEMENTS // (num_labels * rows * columns))):
        row, column = cells.unbind(1)
        upper, lower = (
            torch.lerp(
                flat.index_select(1, vertical[row] * width + left[column]),
                flat.index_select(1, vertical[row] * width + right[column]),
                weights_right,
            )
            for vertical in (top, bottom)
        )  # (columns, K, cells)
        upsampled = torch.lerp(upper, lower, weights_down)  # (rows, columns, K, cells)
        ids[row, :, column] = upsampled.max(2).indices.to(kind).permute(2, 0, 1)
    above, before = rows - rows // 2, columns - columns // 2
    canvas = ids.view((height + 1) * rows, (width + 1) * columns)
    return canvas[above : above + height * rows, before : before + width * columns]


def _neighbours(length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels before and after each of `length` + 1 gaps."""
    gaps = torch.arange(length + 1, device=device)
    return (gaps - 1).clamp(min=0), gaps.clamp(max=length - 1)


def _weights(factor: int, like: torch.Tensor) -> torch.Tensor:
    """How far the `factor` new pixels of a cell lie from its first corner towards its second, in 0..1."""
    steps = torch.arange(factor, dtype=torch.float64, device=like.device)
    return ((steps + factor // 2 + 0.5) / factor - 0.5).to(like.dtype)
