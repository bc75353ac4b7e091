"""The configs that come with hfseg: those of the repository's configs/, which the wheel carries."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIX = ".yaml"


def shipped() -> dict[str, Path]:
    """Name -> file: in the package where it is installed, beside it in a checkout."""
    folder = next(each for each in (PACKAGE / "configs", PACKAGE.parent / "configs") if each.is_dir())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob(f"*{SUFFIX}"))}
