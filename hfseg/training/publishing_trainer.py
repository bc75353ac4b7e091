"""A Trainer whose `push_to_hub` sends the model with our card, and nothing else of the run's folder."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import Trainer
from transformers.trainer_utils import HubStrategy

from hfseg.errors import HubTransferError, UserError
from hfseg.files import write_text
from hfseg.hub import PushResult, check_access, model_files, public_files, push_files

NO_OPTIMIZER = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)

logger = logging.getLogger(__name__)


class PublishingTrainer(Trainer):
    """The stock Trainer, which otherwise sends the whole output folder.

    That holds `training_args.bin` with the token in it, paths of this machine and half-written checkpoints, and the
    card of the run there is overwritten by another one.
    """

    hub_model_id: str | None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Looks whether a push could work; the first one makes the repository.

        Raises:
            UserError: the name, the token or its rights will not do, or `hub_strategy` would send the optimizer.
        """
        if not self.is_world_process_zero():
            return
        if self.args.hub_strategy in NO_OPTIMIZER:
            raise UserError(
                f"hub_strategy={self.args.hub_strategy.value} sends the optimizer and `training_args.bin`, which "
                "holds the token. Use every_save or end."
            )
        wanted = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        self.hub_model_id = check_access(wanted, self._is_private(private), token=token or self.args.hub_token)
        self.push_in_progress = None

    def _is_private(self, private: bool | None = None) -> bool:
        """Private unless someone says otherwise."""
        asked = self.args.hub_private_repo if private is None else private
        return True if asked is None else asked

    def create_model_card(self, *described: Any, **more: Any) -> None:
        """Keeps the card that the run has written. Where there is none yet: one that says that training goes on."""
        path = Path(self.args.output_dir) / "README.md"
        if not path.exists():
            write_text(path, self._progress_card())

    def _progress_card(self) -> str:
        data = ModelCardData(
            pipeline_tag="image-segmentation", library_name="transformers", tags=["semantic-segmentation", "hfseg"]
        )
        return (
            f"---\n{data.to_yaml()}\n---\n\n# A training in progress\n\n"
            f"The weights after step {self.state.global_step} of {self.state.max_steps}. They are not scored yet.\n"
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Sends a checkpoint's model. A Hub that cannot be reached does not stop a training."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        try:
            self._send(Path(checkpoint_folder), f"Training in progress, step {self.state.global_step}")
        except HubTransferError as error:
            logger.warning("%s The training goes on.", error)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> PushResult | None:
        """Sends the model as it is now, blocking.

        Raises:
            UserError: it cannot be published.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        with tempfile.TemporaryDirectory() as folder:
            self.save_model(folder, _internal_call=True)
            if not self.is_world_process_zero():
                return None
            return self._send(Path(folder), commit_message or "End of training", token, revision, private)

    def _send(
        self,
        folder: Path,
        message: str,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> PushResult:
        own_card = Path(self.args.output_dir) / "README.md"
        card = own_card.read_text(encoding="utf-8") if own_card.exists() else self._progress_card()
        files = public_files(model_files(folder) | {"README.md": card}, {})
        revision, token = revision or self.args.hub_revision, token or self.args.hub_token
        repo = check_access(str(self.hub_model_id), self._is_private(private), token=token, revision=revision)
        return push_files(files, repo, message, revision, self._is_private(private), token=token)
