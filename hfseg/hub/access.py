"""Whether a push could work: names, the token and its rights, the repository that is there."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hfseg.errors import UserError
from hfseg.hub.failures import TRANSFER_ERRORS, explained

Kind: TypeAlias = Literal["model", "dataset"]
REVISION = re.compile(r"\w(?:[\w+@-]|[./](?![./]|lock\b|$))*")  # what git allows, without its odd characters


def check_access(
    repo: str,
    private: bool = True,
    create_pr: bool = False,
    token: str | None = None,
    revision: str | None = None,
    kind: Kind = "model",
) -> str:
    """Looks whether a push of a model or a data set could work, before it is made, and changes nothing.

    Returns:
        The repository's full name.

    Raises:
        UserError: a name or a revision that is not allowed; no token, or one without write permission; a repository
            that everybody can see, where a private one is wanted; for a model, a data set of that name.
        HubTransferError: the Hub cannot be asked.
    """
    check_name(repo, revision)
    if (token or get_token()) is None:
        raise UserError(
            f"Publishing to {repo} needs a token, and there is none. Log in with `hf auth login`, or set HF_TOKEN, "
            "with a token that has write permission. Nothing was sent."
        )
    hub = HfApi(token=token)
    with explained(f"Asking the Hub for the rights of the token, for {repo},", "Nothing was sent."):
        owner = hub.whoami(token)
        repo = repo if "/" in repo else f"{owner['name']}/{repo}"
        _check_rights(owner, repo, create_pr)
        try:
            info = hub.repo_info(repo, repo_type=kind)
        except RepositoryNotFoundError:
            if kind == "model" and is_data_set(hub, repo):
                raise UserError(
                    f"hub.repo={repo} is a data set of the Hub: choose another name for the model. Nothing was sent."
                ) from None
        else:
            if private and not create_pr and not info.private:
                raise UserError(
                    f"hub.repo={repo} exists and everybody can see it, but hub.private is true. Set hub.private=false "
                    "to publish there, or choose another repository. Nothing was sent."
                )
    return repo


def check_name(repo: str, revision: str | None) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not allowed as a repository's name: write owner/name. ({error})") from error
    if revision is not None and not REVISION.fullmatch(revision):
        raise UserError(f"{revision!r} is not allowed as a revision: write the name of a branch, such as main or v1.")


def _check_rights(owner: Mapping[str, Any], repo: str, create_pr: bool) -> None:
    """Raises UserError where the token cannot write, as far as it says."""
    access = owner.get("auth", {}).get("accessToken", {})
    role, namespace = access.get("role"), repo.split("/")[0]
    scopes = access.get("fineGrained", {}).get("scoped", [])
    can_write = role != "read" and (
        role != "fineGrained" or any("write" in right for scope in scopes for right in scope.get("permissions", []))
    )
    if not can_write:
        raise UserError(
            f"The token of {owner['name']} has no write permission (it is a {role!r} token), so nothing can be "
            f"published to {repo}. Log in with one that has: `hf auth login`. Nothing was sent."
        )
    own = [owner["name"], *(organisation["name"] for organisation in owner.get("orgs", []))]
    if role == "write" and namespace not in own and not create_pr:
        raise UserError(
            f"hub.repo={repo}: the token's user {owner['name']} may publish under {', '.join(own)}, not under "
            f"{namespace}. Choose one of them, or set hub.create_pr=true. Nothing was sent."
        )


def is_data_set(hub: HfApi, repo: str) -> bool:
    try:
        return bool(hub.repo_exists(repo, repo_type="dataset"))
    except TRANSFER_ERRORS:
        return False
