"""What one of several processes does with sharded weights: a training, and its scores. See test_sharding.

Under accelerate launch: python -m tests.sharded_worker FOLDER STEPS_OF_THE_CHECKPOINT_TO_GO_ON_FROM
"""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from hfseg import LabelSet, SegTrainer
from tests.builders import make_trainer, stable_model, uneven_samples

LABELS = LabelSet(["pet", "background", "boundary"])


class OnCpus(SegTrainer):
    """A trainer of the first samples in order. accelerate knows FSDP on GPUs only: here it is told of it on CPUs."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.world_size > 1:
            self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # from accelerate's variables
            self.accelerator.state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True

    def _prepare_inputs(self, inputs: Any) -> Any:
        prepared = super()._prepare_inputs(inputs)
        images = prepared["pixel_values"]  # of the evaluation in float32, and a list where their sizes differ
        is_list = isinstance(images, list)
        return prepared | {"pixel_values": [each.double() for each in images] if is_list else images.double()}

    def _get_train_sampler(self, train_dataset: object = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Watch(TrainerCallback):
    """Keeps what part of the weights this process has held while training."""

    part = 1.0

    def on_step_end(self, *_: object, model: torch.nn.Module, **__: object) -> None:
        weights = list(model.parameters())
        mine = sum((each.to_local() if isinstance(each, DTensor) else each).numel() for each in weights)
        self.part = mine / sum(each.numel() for each in weights)


def main() -> None:
    folder, resumed = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    watch, world_size = Watch(), 1 if len(sys.argv) > 3 else 2
    trainer = make_trainer(
        folder / "run", LABELS, stable_model(LABELS), kind=OnCpus, max_steps=6, use_cpu=True, callbacks=[watch],
        per_device_train_batch_size=4 // world_size, gradient_accumulation_steps=2, learning_rate=1e-2,
        max_grad_norm=0.05, logging_steps=2, save_strategy="steps", eval_strategy="steps", eval_steps=2, save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="eval_mean_iou", layer_decay=0.9,
    )  # fmt: skip
    trainer.train_dataset = uneven_samples(trainer)
    trainer.train(resume_from_checkpoint=str(folder / "run" / f"checkpoint-{resumed}") if resumed else None)
    assert trainer.args.world_size == world_size
    scores = trainer.evaluate()
    if trainer.is_world_process_zero():
        trainer.model.save_pretrained(folder / "model")
        history = [
            {key: value for key, value in line.items() if key.endswith(("iou", "loss", "norm", "step"))}
            for line in trainer.state.log_history
        ]
        result = {
            "history": history,
            "part": watch.part,
            "mean_iou": scores["eval_mean_iou"],
            "loss": scores["eval_loss"],
        }
        torch.save(result | {"best_step": trainer.state.best_global_step}, folder / "result.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
