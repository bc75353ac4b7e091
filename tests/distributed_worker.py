"""What one of several processes does: a training and an evaluation; writes what came out. See test_distributed.

Under torchrun: python -m tests.distributed_worker FOLDER BATCH_SIZE ACCUMULATION UNFREEZE_AT

The training is one step, or with UNFREEZE_AT > 0 one step more than that, with a frozen encoder before it.
"""

import sys
from pathlib import Path

import torch
from torch.utils.data import SequentialSampler

from hfseg import LabelSet, SegMetrics, SegTrainer
from hfseg.config import ModelConfig
from hfseg.training import ScheduledUnfreezing
from tests.builders import make_trainer, stable_model, uneven_samples

LABELS = LabelSet(["pet", "background", "boundary"])


class InOrder(SegTrainer):
    """The first samples, in order, so that every way to split a step sees the same."""

    def _get_train_sampler(self, train_dataset: object = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def main() -> None:
    folder, (batch_size, accumulation, unfreeze_at) = Path(sys.argv[1]), map(int, sys.argv[2:])
    freezing = ScheduledUnfreezing(ModelConfig(freeze="encoder", unfreeze_at=unfreeze_at or None))
    torch.manual_seed(0)
    model = stable_model(LABELS)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = make_trainer(
        folder, LABELS, model, kind=InOrder, max_steps=1 + unfreeze_at, per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation, learning_rate=1.0, max_grad_norm=0.0, logging_steps=1,
        lr_scheduler_type="constant", save_strategy="no", use_cpu=True, ema=0.9, optim="sgd",
        callbacks=[freezing] if unfreeze_at else None, compute_metrics=SegMetrics(LABELS, calibration=True),
    )  # fmt: skip
    trainer.train_dataset = uneven_samples(trainer)
    trainer.train()
    gradients = {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}
    model.load_state_dict(model.state_dict() | before)  # the same weights in every run, to the last bit
    model.float()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        result = {
            "world_size": trainer.args.world_size,
            "gradients": gradients,
            "loss": trainer.state.log_history[0]["loss"],
            "train_mean_iou": trainer.state.log_history[0]["train_mean_iou"],
            "eval_loss": metrics["eval_loss"],
            "bins": torch.from_numpy(trainer.compute_metrics.confidence.bins),
            "temperature": trainer.compute_metrics.fit_temperature(),
            "confusion": torch.from_numpy(trainer.compute_metrics.confusion),
            "areas": torch.from_numpy(trainer.compute_metrics.image_areas),
        }
        torch.save(result, folder / "result.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads can abort a process that ends with them alive


if __name__ == "__main__":
    main()
