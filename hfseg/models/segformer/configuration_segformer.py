"""SegFormer configuration: stock `SegformerConfig` under a model type of our own while in memory."""

from os import PathLike
from typing import Any

from transformers import SegformerConfig

from hfseg.errors import UserError
from hfseg.labels import LabelSet

# Table 6 of the paper: blocks per stage, channels per stage, width of the decoder.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": ((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "b2": ((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "b3": ((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "b4": ((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "b5": ((3, 6, 40, 3), (64, 128, 320, 512), 768),
}


class HfsegSegformerConfig(SegformerConfig):
    """Configuration of our SegFormer: every key of stock `SegformerConfig`, with the same meaning.

    In memory the model type is `hfseg-segformer`, so that transformers' registries can tell the two apart. On disk it
    is `segformer`: what we save, any transformers loads without remote code, and we load every stock checkpoint.
    """

    model_type = "hfseg-segformer"

    @classmethod
    def from_size(cls, size: str, labels: LabelSet) -> "HfsegSegformerConfig":
        """The published configuration of one size.

        Args:
            size: "b0" to "b5".
            labels: class names and ignore index that the config carries.

        Raises:
            UserError: no such size.
        """
        if size not in SIZES:
            raise UserError(f"model.size={size!r} is not a SegFormer size; choose one of {', '.join(SIZES)}.")
        depths, hidden_sizes, decoder_hidden_size = SIZES[size]
        return cls(
            depths=depths,
            hidden_sizes=hidden_sizes,
            decoder_hidden_size=decoder_hidden_size,
            id2label=labels.id2label,
            label2id=labels.label2id,
            semantic_loss_ignore_index=labels.ignore_index,
        )

    def to_dict(self) -> dict[str, Any]:
        """The stock config's dictionary: this is what is written to disk."""
        output = super().to_dict()
        output["model_type"] = SegformerConfig.model_type
        if output.get("architectures"):
            output["architectures"] = [name.removeprefix("Hfseg") for name in output["architectures"]]
        return output

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a stock config as ours; any other architecture keeps its type, and transformers reports it."""
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config.get("model_type") == SegformerConfig.model_type:
            config["model_type"] = cls.model_type
        return config, kwargs
