"""Code that comes with a model: not run, unless the user trusts it; then it is said whose it is."""

import logging
from pathlib import Path
from typing import Any

from hfseg.errors import UserError, shown
from hfseg.hub import pull
from hfseg.models.fcn.configuration_fcn import HfsegFCNConfig
from hfseg.models.model_files import Tree

logger = logging.getLogger(__name__)


def code_options(tree: Tree, folder: Path, source: str, trust: bool) -> dict[str, Any]:
    """What `from_pretrained` of an Auto class is told about code that comes with a model.

    Args:
        tree: what is in the model's `config.json`.
        folder: where it is.
        source: what the user calls the folder.
        trust: whether the code may be run. If there is some, a warning says whose, and at which revision.

    Raises:
        UserError: code of several repositories, or of one that cannot be had.
    """
    auto_map = tree.get("auto_map") or {}
    if not trust or not auto_map or tree.get("model_type") == HfsegFCNConfig.model_type:  # hfseg has that code
        return {"trust_remote_code": False}
    owners = sorted({str(name).partition("--")[0] for name in auto_map.values() if "--" in str(name)})
    if len(owners) > 1:
        raise UserError(f"{source}: its code is that of several repositories, {shown(owners)}: it is not loaded here.")
    if owners:
        revision = pull(owners[0]).name
        logger.warning("Running the code of %s at revision %s, which %s names.", owners[0], revision, source)
        return {"trust_remote_code": True, "code_revision": revision}
    is_snapshot = folder.parent.name == "snapshots"
    where = f"at revision {folder.name}" if is_snapshot else f"in the local folder {folder.resolve()}"
    logger.warning("Running the code of %s %s.", source, where)
    return {"trust_remote_code": True}


def remedy(tree: Tree, trust: bool) -> str:
    """The sentence to add to an error where code that was not run may be the cause."""
    if trust or not tree.get("auto_map"):
        return ""
    return (
        " The model comes with code of its own, which was not run. Read that code, and where you trust it, say so: "
        "--trust-remote-code, or for a training model.type=auto and model.trust_remote_code=true."
    )
