"""check_card: is a card ready to be shown to others? Asked before anything is sent."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from hfseg.errors import UserError

FIXED = {"library_name": "transformers", "pipeline_tag": "image-segmentation"}
SECTIONS = ("## Use", "## Results", "## Reproduce it", "## Limits and licences", "## Cite")


def check_card(path: Path) -> ModelCard:
    """Reads a card and looks for what the Hub and its readers need.

    Args:
        path: the card, a README.md; what it shows must lie beside it.

    Returns:
        The card.

    Raises:
        UserError: names everything that is missing or wrong, in the metadata, the text and the pictures.
    """
    try:
        content = path.read_text(encoding="utf-8")
        card = ModelCard(content)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no model card ({error}). {REMEDY}") from error
    examples = [each for each in card.data.to_dict().get("widget") or [] if isinstance(each, dict)]
    shown = [str(each["src"]) for each in examples if each.get("src")]
    problems = [*_metadata_problems(card), *_text_problems(card.text, path.parent, shown)]
    home = Path.home()
    if home != Path("/") and f"{home}/" in content:
        problems.append(f"it names a folder of this machine: {home}")
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise UserError(f"{path} is not ready to be published:\n{lines}\n{REMEDY}")
    return card


REMEDY = "Write it anew: `--eval-only` ends with it, hfseg.publishing.card.write_card(folder) does nothing else."


def _metadata_problems(card: ModelCard) -> list[str]:
    data: dict[str, Any] = card.data.to_dict()
    wrong = [key for key, value in FIXED.items() if data.get(key) != value]
    problems = [f"`{key}` is {data.get(key)!r}, not {FIXED[key]!r}" for key in wrong]
    needed = ["license", "tags", *(["license_name", "license_link"] if data.get("license") == "other" else [])]
    problems += [f"`{key}` is missing" for key in needed if not data.get(key)]
    if not card.data.eval_results:
        return [*problems, "`model-index` has no result"]
    if all(result.metric_type != "mean_iou" for result in card.data.eval_results):
        problems.append("`model-index` has no mean_iou")
    for number, result in enumerate(card.data.eval_results):
        value = result.metric_value
        if not isinstance(value, int | float) or not math.isfinite(value):
            problems.append(f"`model-index` result {number}: `value` is {value!r}, not a number")
        fields = ("dataset_name", "dataset_type", "dataset_split", "metric_name")
        empty = [field for field in fields if not vars(result)[field]]
        problems += [f"`model-index` result {number}: `{field}` is missing" for field in empty]
    return problems


def _text_problems(text: str, folder: Path, shown: list[str]) -> list[str]:
    """`shown` are the files and addresses that the widget shows."""
    problems = [f"the section `{section}` is missing" for section in SECTIONS if f"\n{section}\n" not in text]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = [*re.findall(r"(?<!\\)\]\(([^)\s]+)\)", prose), *shown]
    targets = [target for target in found if ":" not in target and target[0] != "#"]
    return problems + [f"it shows {target}, which is missing" for target in targets if not (folder / target).is_file()]
