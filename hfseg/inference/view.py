"""How a trained model looks at images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfseg.config import EvalConfig, apply_override, explain, read_yaml, type_of
from hfseg.errors import UserError

# Keys of `eval` that say how an image is looked at; the others are about scores.
VIEW = ("mode", "size", "crop", "stride", "scales", "flip")


def take_max_pixels(overrides: Sequence[str]) -> tuple[int | None, list[str]]:
    """The value of `data.max_pixels`, None without one, and the overrides that are left.

    Raises:
        UserError: it is no whole number above 0.
    """
    taken = [override for override in overrides if override.partition("=")[0].strip() == "data.max_pixels"]
    if not taken:
        return None, list(overrides)
    digits = taken[-1].partition("=")[2].strip().replace("_", "")
    if not (digits.isascii() and digits.isdecimal() and int(digits)):
        raise UserError(f"{taken[-1]}: it must be a number of pixels, such as data.max_pixels=400000000.")
    return int(digits), [override for override in overrides if override not in taken]


def load_view(run_config: Path | None, overrides: Sequence[str], default_mode: str) -> EvalConfig:
    """How a trained model looks at images: as in the evaluation of its run, unless overrides say something else.

    Args:
        run_config: the saved config of the run, if there is one.
        overrides: strings like `eval.flip=true`. With `eval.mode` the run's own section does not count.
        default_mode: where neither says one.

    Raises:
        UserError: lists everything that is wrong.
    """
    tree = {} if run_config is None else read_yaml(run_config, type_of)
    section = tree.get("eval", {})
    if not isinstance(section, dict):
        raise UserError(f"{run_config}: `eval` holds {section!r}, not keys and values.")
    own = {key: value for key, value in section.items() if key in VIEW}
    changes: dict[str, Any] = {}
    for override in overrides:
        apply_override(changes, override, type_of)
    changed = changes.pop("eval", {})
    if changes or not isinstance(changed, dict) or {"boundary", "calibration"} & changed.keys():
        raise UserError(
            f"{', '.join(overrides)}: only eval. keys and data.max_pixels change a prediction. The keys are "
            f"{', '.join(VIEW)}; such as eval.mode=slide eval.crop=512 eval.stride=384."
        )
    try:
        return EvalConfig.model_validate({"mode": default_mode} | ({} if "mode" in changed else own) | changed)
    except ValidationError as error:
        problems = [explain(("eval", *e["loc"]), e["type"], e["msg"], e["input"]) for e in error.errors()]
        raise UserError("\n".join([f"{len(problems)} problem(s) in the config", *problems])) from error
