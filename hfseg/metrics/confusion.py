"""Counting (label, prediction) pairs: the integers behind every metric, in the loss as in the evaluation."""

import torch


def is_ignored(references: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Where labels, of any integer type, are the ignore index; a type that cannot hold it has none."""
    limits = torch.iinfo(references.dtype)
    if not limits.min <= ignore_index <= limits.max:  # torch would compare with what is left of it: 300 with 44
        return torch.zeros_like(references, dtype=torch.bool)
    return references == ignore_index


def count_confusion(
    predictions: torch.Tensor, references: torch.Tensor, num_labels: int, ignore_index: int
) -> torch.Tensor:
    """Counts pixels by label and predicted class, for each image of a batch, in one pass.

    The pair becomes one index `label * K + prediction` and the indices one histogram. Ignored pixels are not masked
    out, which would copy everything: they fall into a row of their own.

    Args:
        predictions: class ids (B, H, W) of 0..K-1, any integer type.
        references: labels (B, H, W) of 0..K-1 or `ignore_index`, any integer type, on the same device. Nothing is
            checked here, because a check would stall a GPU; `SegMetrics.update` and the data collator do.
        num_labels: K.
        ignore_index: label of pixels that do not count.

    Returns:
        int64 counts (B, K+1, K): rows are labels, columns predictions; row K holds the ignored pixels.
    """
    batch_size, num_cells = len(references), (num_labels + 1) * num_labels
    # 32 bits hold every index that can occur and move half the memory of 64. On a CPU `masked_fill`, and arithmetic
    # between two integer types, take several times as long as what is done here instead.
    rows = references.to(torch.int32)
    ignored = (rows == ignore_index).to(torch.int32)
    index = (rows * (1 - ignored)).add_(ignored, alpha=num_labels)
    index.mul_(num_labels).add_(predictions.to(torch.int32))
    if batch_size > 1:
        offsets = torch.arange(batch_size, dtype=torch.int32, device=index.device) * num_cells
        index.add_(offsets.view(-1, 1, 1))
    counts = torch.bincount(index.flatten(), minlength=batch_size * num_cells)
    return counts.view(batch_size, num_labels + 1, num_labels)
