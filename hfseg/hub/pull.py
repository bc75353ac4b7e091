"""A model's repository as a folder here: one pinned snapshot."""

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from hfseg.errors import HubTransferError
from hfseg.hub.access import check_name, is_data_set
from hfseg.hub.failures import explained

# Weights as safetensors and what lies beside them. No pickles, no other frameworks' weights.
WANTED = ["*.json", "*.jsonl", "*.safetensors", "*.py", "*.md", "*.yaml", "*.npz", "figures/*"]
UNWANTED = ["checkpoint-*", "last-checkpoint/*", "*optimizer*"]


def pull(repo: str, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads one revision, so that everything in the folder belongs together: load from there.

    Args:
        repo: `owner/name` of a model.
        revision: a branch, tag or commit; whatever it is, one commit is pinned first. `main` by default.
        token: for private repositories; by default the one of `hf auth login` or `HF_TOKEN`.

    Returns:
        The snapshot's folder, named as the commit: from the cache where the Hub cannot be reached and it is whole.

    Raises:
        UserError: it is no name of a repository, or of a revision.
        HubTransferError: it cannot be had; says why.
    """
    check_name(repo, revision)
    at = f" at {revision}" if revision else ""
    try:
        with explained(f"Downloading {repo}{at}", "Nothing half-downloaded is used."):
            folder = Path(
                snapshot_download(
                    repo, revision=revision, token=token, allow_patterns=WANTED, ignore_patterns=UNWANTED
                )
            )
    except HubTransferError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError) and is_data_set(HfApi(token=token), repo):
            raise HubTransferError(f"{repo} is a data set of the Hub, not a model. Give the id of a model.") from error
        raise
    if not any(folder.glob("*")):
        raise HubTransferError(f"{repo}{at} holds no config and no safetensors: there is no model in it.")
    return folder
