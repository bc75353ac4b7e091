"""Tokens (B, h*w, C) and images (B, C, h, w) in channels-last memory are the same bytes: views of each other."""

import torch


def to_image(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens (B, h*w, C) as an image (B, C, h, w) in channels-last memory: a view."""
    return tokens.view(tokens.shape[0], height, width, tokens.shape[2]).permute(0, 3, 1, 2)


def to_tokens(image: torch.Tensor) -> torch.Tensor:
    """An image (B, C, h, w) as tokens (B, h*w, C): a view where the memory is channels-last, as it is in here."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)
