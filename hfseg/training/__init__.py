"""`SegTrainer` and what belongs to it: arguments, callbacks, checkpoints, the final scores."""

from hfseg.training.arguments import (
    check_arguments,
    check_lora,
    check_streaming,
    check_worker_memory,
    training_arguments,
)
from hfseg.training.callbacks import HistoryCallback, ScheduledUnfreezing, best_metric_key, early_stopping
from hfseg.training.checkpoints import checkpoints, find_damage, last_whole_checkpoint
from hfseg.training.final_scores import FinalScores, evaluate
from hfseg.training.trainer import SegTrainer

__all__ = [
    "FinalScores",
    "HistoryCallback",
    "ScheduledUnfreezing",
    "SegTrainer",
    "best_metric_key",
    "check_arguments",
    "check_lora",
    "check_streaming",
    "check_worker_memory",
    "checkpoints",
    "early_stopping",
    "evaluate",
    "find_damage",
    "last_whole_checkpoint",
    "training_arguments",
]
