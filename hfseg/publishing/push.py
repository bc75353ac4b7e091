"""A run's folder to where its `hub:` section says, at its end or later."""

from collections.abc import Sequence
from pathlib import Path

from hfseg.config import HubConfig, RunConfig
from hfseg.console import say
from hfseg.errors import UserError
from hfseg.hub import PushResult, check_access, push_files
from hfseg.publishing.push_files import check_pushable, files_to_push
from hfseg.runs import CONFIG


def push(
    run_dir: str | Path,
    repo: str,
    *,
    revision: str | None = None,
    private: bool = True,
    create_pr: bool = False,
    images: bool = False,
    token: str | None = None,
) -> PushResult:
    """Pushes a finished run as one commit, and compares the sums of everything that arrived.

    Sent are the weights, their config and image processor at the repository's top level, the card, the scores, the
    config and the figures. Never sent are the optimizer, `training_args.bin`, checkpoints, paths of this machine and
    tokens; pictures of the data only where it is drawn, or with `images`.

    Args:
        run_dir: the folder of the run.
        repo: `owner/name`, or `name` for the token's own user; made if there is none.
        revision: the branch, made if there is none; `main` by default.
        private: a repository that is made is private, and one that everybody can see is refused.
        create_pr: open a pull request instead of a commit on the branch.
        images: send pictures that show images of the data, too.
        token: by default the one of `hf auth login` or `HF_TOKEN`.

    Raises:
        UserError: the run is not finished, its card lacks a field, the name, the token or its rights will not do: then
            nothing was sent.
        HubTransferError: the transfer failed; says what has reached the repository.
    """
    run = check_pushable(Path(run_dir))  # what is wrong with the run is said before the Hub is asked anything
    repo = check_access(repo, private, create_pr, token, revision)
    files = files_to_push(run, repo, images)
    return push_files(files, repo, f"Publish {run.folder.resolve().name}", revision, private, create_pr, token)


def push_run(run_dir: Path, hub: HubConfig) -> PushResult:
    """Pushes a finished run where `hub:` says, and prints where that is.

    Raises:
        UserError: `hub.repo` is not set, or the run cannot be pushed.
    """
    if hub.repo is None:
        raise UserError("hub.repo is not set: say where to publish, such as hub.repo=me/name.")
    result = push(
        run_dir, hub.repo, revision=hub.revision, private=hub.private, create_pr=hub.create_pr, images=hub.images
    )
    print_outcome(result)
    return result


def print_outcome(result: PushResult) -> None:
    outcome = "published" if result.is_new else "published before, unchanged"
    say(f"{outcome}: {result.url} (commit {result.commit})", is_whole=True)


def publish_finished(run_dir: str | Path, overrides: Sequence[str] = ()) -> PushResult:
    """Pushes a run that was trained before, where its own `hub:` or the overrides say.

    Args:
        run_dir: the folder of the run.
        overrides: `hub.` keys, such as `hub.repo=me/name`.

    Raises:
        UserError: another key, a run that is not finished, or it cannot be pushed.
    """
    other = [override for override in overrides if not override.startswith("hub.")]
    if other:
        raise UserError(f"--push takes hub. keys only, and sends the run as it is; got {', '.join(other)}.")
    check_pushable(Path(run_dir))
    return push_run(Path(run_dir), RunConfig.load(Path(run_dir) / CONFIG, overrides).hub)
