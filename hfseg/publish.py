"""A run's folder to where its `hub:` section says, at its end or later."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hfseg.config import HubConfig, RunConfig
from hfseg.errors import UserError
from hfseg.hub import PushResult, push
from hfseg.run_files import check_finished


def publish_run(run_dir: Path, hub: HubConfig) -> PushResult:
    """Publishes a finished run where `hub:` says, and prints where that is.

    Raises:
        UserError: `hub.repo` is not set, or the run cannot be published.
    """
    if hub.repo is None:
        raise UserError("hub.repo is not set: say where to publish, such as hub.repo=me/name.")
    result = push(
        run_dir, hub.repo, revision=hub.revision, private=hub.private, create_pr=hub.create_pr, images=hub.images
    )
    said = "published" if result.is_new else "published before, unchanged"
    Console().print(f"{said}: {result.url} (commit {result.commit})", highlight=False, soft_wrap=True)
    return result


def publish_finished(run_dir: str | Path, overrides: Sequence[str] = ()) -> PushResult:
    """Publishes a run that was trained before, where its own `hub:` or the overrides say.

    Args:
        run_dir: the folder of the run.
        overrides: `hub.` keys, such as `hub.repo=me/name`.

    Raises:
        UserError: another key, a run that is not finished, or it cannot be published.
    """
    other = [override for override in overrides if not override.startswith("hub.")]
    if other:
        raise UserError(f"--push takes hub. keys only, and sends the run as it is; got {', '.join(other)}.")
    check_finished(Path(run_dir))
    return publish_run(Path(run_dir), RunConfig.load(Path(run_dir) / "run_config.yaml", overrides).hub)
