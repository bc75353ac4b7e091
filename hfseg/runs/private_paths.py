"""Commands and configs without the paths of the machine that a run was made on."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOREIGN = ("/", "~", "..")  # how a path starts that means nothing on another machine
# A path inside an override's YAML, such as data={name: folder, root: /home/me/data}
INNER_PATH = re.compile(r"(?<=[\s{\[,'\"])(?:/|~/|\.\./)[^\s,\]}'\"]+")
PICKLES = (".pth", ".pt", ".bin")
COMMAND = ("hfseg", "hfseg.exe", "__main__.py")  # programs that are the command `hfseg`; the last is `python -m hfseg`


def public_config(tree: dict[str, Any]) -> dict[str, Any]:
    """A saved config without the paths of the machine that it was made on.

    `data.root` becomes `<root>`; absolute paths elsewhere become their last part; a local `model.init` starts with
    `./`. The result still loads as a RunConfig.
    """
    public = _without_paths(tree)
    if tree["data"].get("root"):
        public["data"]["root"] = "<root>"
    if tree.get("model", {}).get("init"):
        public["model"]["init"] = public_init(tree["model"]["init"])
    return public


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_paths(child) for child in value]
    return Path(value).name if isinstance(value, str) and value.startswith(FOREIGN) else value


def public_init(init: str) -> str:
    """`model.init` without this machine's folders: `./` and the path, or its last part, for what lies here.

    Of the `model` in a run's folder, which is named after the run, that name stays.
    """
    path = Path(init)
    if not (init.startswith(("/", "~", ".")) or path.suffix in PICKLES or path.exists()):
        return init
    is_inside = not init.startswith(("/", "~")) and ".." not in path.parts
    is_of_run = path.name == "model" and (path.parent / "run_config.yaml").is_file()
    outside = f"{path.parent.name}/model" if is_of_run else path.name
    return f"./{path if is_inside else outside}"


def public_command(words: Sequence[str]) -> str:
    """The command without the paths of this machine: `<root>`, or a path's last part."""
    is_command = Path(words[0]).name in COMMAND
    shown = ["hfseg"] if is_command else ["python"]
    for word in words[1:] if is_command else words:
        key, equals, value = word.partition("=")
        if key == "data.root" and equals:
            shown.append("data.root=<root>")
        elif equals and _is_private(value):
            shown.append(shlex.quote(f"{key}={Path(value).name}"))
        elif _is_private(word):
            shown.append(shlex.quote("/".join(Path(word).parts[-2:])))
        else:
            shown.append(shlex.quote(INNER_PATH.sub("<path>", word)))
    return " ".join(shown)


def _is_private(word: str) -> bool:
    return word.startswith(FOREIGN) or Path(word).is_absolute()  # such as C:\data on Windows
