"""What the loopback Hub checks in the metadata of a README.md, after the real Hub's `validate-yaml`."""

import re
from typing import Any

import yaml

LICENSES = [
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "other",
    "unknown",
]
Messages = list[dict[str, str]]


def read_card(content: str) -> Any:
    """The metadata between the first two lines of `---`; an empty dict without; raises yaml.YAMLError."""
    found = re.match(r"\s*---\r?\n(.*?\n)?---\s*(\n|$)", content, re.DOTALL)
    return (yaml.safe_load(found[1] or "") or {}) if found else {}


def check_card(content: str) -> tuple[Messages, Messages]:
    """The errors and the warnings."""
    try:
        card = read_card(content)
    except yaml.YAMLError as error:
        return [{"message": f"YAML: {error}"}], []
    if not isinstance(card, dict):
        return [{"message": "the metadata must be a mapping"}], []
    if not card:
        return [], [{"message": "empty or missing yaml metadata in repo card"}]
    return [{"message": text} for text in [*check_fields(card), *check_results(card)]], []


def check_fields(card: dict[str, Any]) -> list[str]:
    errors = []
    for key, kinds in {"license": str, "pipeline_tag": str, "library_name": str, "tags": list}.items():
        if key in card and not isinstance(card[key], kinds):
            errors.append(f'"{key}" must be a {kinds.__name__}')
    if isinstance(card.get("license"), str) and card["license"] not in LICENSES:
        errors.append(f'"license" must be one of {", ".join(LICENSES)}')
    for key in ("base_model", "datasets"):
        names = card.get(key, [])
        names = [names] if isinstance(names, str) else names
        wrong = [name for name in names if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name))]
        errors += [f'"{key}" {name!r} is not a valid id of the Hub' for name in wrong]
    return errors


def check_results(card: dict[str, Any]) -> list[str]:
    """What is missing in model-index."""
    models = card.get("model-index", [])
    if not isinstance(models, list):
        return ['"model-index" must be a list']
    errors = []
    for m, model in enumerate(models):
        errors += missing(model, f"model-index[{m}]", "name", "results")
        for r, result in enumerate(model.get("results") or []):
            where = f"model-index[{m}].results[{r}]"
            errors += missing(result, where, "task", "dataset", "metrics")
            errors += missing(result.get("task") or {}, f"{where}.task", "type")
            errors += missing(result.get("dataset") or {}, f"{where}.dataset", "type", "name")
            for k, metric in enumerate(result.get("metrics") or []):
                errors += missing(metric, f"{where}.metrics[{k}]", "type", "value")
    return errors


def missing(part: dict[str, Any], where: str, *keys: str) -> list[str]:
    return [f'"{where}.{key}" is required' for key in keys if part.get(key) in (None, "", [], {})]
