"""What may leave the machine: files without tokens, and without the paths of this machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import get_token

from hfseg.errors import UserError

Files: TypeAlias = dict[str, bytes | Path]  # by their path in the repository; text as the bytes to send
TEXT = (".json", ".jsonl", ".yaml", ".md", ".html", ".py")
TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")


def model_files(folder: Path) -> dict[str, Path]:
    """Weights, configs and model code of a folder that `save_pretrained` wrote, or of a checkpoint."""
    patterns = ("*config.json", "model*.safetensors", "model.safetensors.index.json", "*.py")
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}


def public_files(found: Mapping[str, str | Path], private: Mapping[str, str]) -> Files:
    """Files as they may be sent: text without private words, everything else as it is.

    Args:
        found: path in the repository -> a file, or the text that is to be there.
        private: paths of this machine -> what stands for them, wherever they stand as paths.

    Raises:
        UserError: a text cannot be read, or holds a token of the Hub: in a note, say, or a command.
    """
    files: Files = {}
    own = get_token()
    for name, content in found.items():
        if isinstance(content, Path) and content.suffix not in TEXT:
            files[name] = content
            continue
        try:
            text = content if isinstance(content, str) else content.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{content} is torn ({error}). Restore it; nothing was sent.") from error
        for word, public in private.items():
            text = re.sub(rf"(?<![\w.>-]){re.escape(word)}(?![\w-])", public, text)
        if TOKEN.search(text) or (own and own in text):
            raise UserError(f"{name} holds a token of the Hub. Take it out of the run's files; nothing was sent.")
        files[name] = text.encode()
    return files
