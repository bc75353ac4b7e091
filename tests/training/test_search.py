"""A search for hyperparameters: every trial is the training that its arguments make, whatever came before it."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import BestRun

from hfseg import LabelSet, SegTrainer, UserError
from hfseg.runs import read_history
from hfseg.training import HistoryCallback
from hfseg.training.callbacks import EarlyStopping
from tests.builders import TIMES, make_trainer, tiny_model
from tests.conftest import REPOSITORY
from tests.extras import needs

needs("hpo")

import optuna  # noqa: E402
from optuna.pruners import BasePruner  # noqa: E402
from optuna.samplers import RandomSampler  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)

WITH_EVALUATIONS: dict[str, Any] = {
    "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True,
    "metric_for_best_model": "mean_iou", "logging_steps": 1,
}  # fmt: skip


def space(trial: optuna.Trial) -> dict[str, Any]:
    chosen = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        "seed": trial.suggest_int("seed", 1, 99),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [2, 4]),
    }
    if trial.number == 0:
        chosen["weight_decay"] = trial.suggest_float("weight_decay", 0.1, 0.5)
    return chosen


class Record(TrainerCallback):
    """Weights, log and score of each training's last evaluation."""

    def __init__(self) -> None:
        self.results: list[tuple[dict[str, torch.Tensor], list[dict[str, Any]], float]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.results.append(({}, [], 0.0))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        lines = [{k: v for k, v in line.items() if not k.endswith(TIMES)} for line in state.log_history]
        self.results[-1] = weights, lines, metrics["eval_mean_iou"]

    @property
    def scored_steps(self) -> list[list[int]]:
        return [[line["step"] for line in lines if "eval_loss" in line] for _, lines, _ in self.results]


def search(trainer: SegTrainer, **options: Any) -> tuple[BestRun, list[dict[str, Any]]]:
    """The best of three trials, and the arguments of each."""
    arguments: dict[int, dict[str, Any]] = {}

    def noted(trial: optuna.Trial) -> dict[str, Any]:
        arguments[trial.number] = space(trial)
        return arguments[trial.number]

    best = trainer.hyperparameter_search(
        noted, lambda metrics: metrics["eval_mean_iou"], n_trials=3, direction="maximize",
        sampler=RandomSampler(seed=1), **options,
    )  # fmt: skip
    return best, list(arguments.values())


def assert_same(mine: Any, other: Any) -> None:
    """To the last bit."""
    assert mine[0].keys() == other[0].keys()
    for name, value in mine[0].items():
        assert value.equal(other[0][name]), name
    assert mine[1:] == other[1:]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"ema": 0.9}, id="ema", marks=pytest.mark.slow),
        pytest.param({"head_lr_factor": 10.0, "layer_decay": 0.8}, id="groups", marks=pytest.mark.slow),
    ],
)
def test_a_trial_is_a_training_of_its_own(tmp_path: Path, labels: LabelSet, options: dict[str, Any]) -> None:
    options = {"model_init": lambda: tiny_model(labels), "save_strategy": "no", "max_steps": 2, **options}
    trials, alone = Record(), Record()
    trainer = make_trainer(tmp_path / "search", labels, callbacks=[trials], **options)
    before = dict(vars(trainer.args))
    best, arguments = search(trainer)
    assert vars(trainer.args) == before
    for number, chosen in enumerate(arguments):
        other = make_trainer(tmp_path / str(number), labels, callbacks=[alone], **options, **chosen)
        other.train()
        other.evaluate()
        assert_same(trials.results[number], alone.results[number])
    scores = [score for _, _, score in trials.results]
    assert len(set(scores)) == 3
    number = scores.index(max(scores))
    assert (best.run_id, best.objective, best.hyperparameters) == (str(number), scores[number], arguments[number])


class SecondTrial(BasePruner):
    """Ends it at its first evaluation."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1


def test_a_trial_knows_nothing_of_one_that_was_pruned(tmp_path: Path, labels: LabelSet) -> None:
    """With averaged weights, checkpoints, the best of them at the end, and a history."""
    options = {"model_init": lambda: tiny_model(labels), "ema": 0.9, **WITH_EVALUATIONS}
    trials, alone, history = Record(), Record(), tmp_path / "history.jsonl"
    callbacks = [HistoryCallback(history), trials]
    trainer = make_trainer(tmp_path / "search", labels, callbacks=callbacks, **options)
    _, arguments = search(trainer, pruner=SecondTrial())
    assert trials.scored_steps == [[1, 2, 3, 4], [1], [1, 2, 3, 4]]
    other = make_trainer(tmp_path / "alone", labels, callbacks=[alone], **options, **arguments[2])
    other.train()
    assert_same(trials.results[2], alone.results[0])
    assert len(read_history(history)) == len(other.state.log_history)
    assert {path.name for path in (tmp_path / "search").iterdir()} == {"run-0", "run-2"}  # run-1 has saved nothing
    assert len(list((tmp_path / "search" / "run-2").glob("checkpoint-*/model.safetensors"))) == 4


def test_early_stopping_counts_from_zero_in_every_trial(tmp_path: Path, labels: LabelSet) -> None:
    settings = WITH_EVALUATIONS | {"metric_for_best_model": "num_pixels"}  # which never gets better
    trials = Record()
    callbacks = [EarlyStopping(2), trials]
    search(make_trainer(tmp_path, labels, model_init=lambda: tiny_model(labels), callbacks=callbacks, **settings))
    assert trials.scored_steps == [[1, 2, 3]] * 3


def test_the_objective_is_mean_iou_and_large(tmp_path: Path, labels: LabelSet) -> None:
    trainer = make_trainer(tmp_path, labels, model_init=lambda: tiny_model(labels), max_steps=1, save_strategy="no")
    with pytest.raises(UserError, match=r"smallest eval_mean_iou. Pass direction='maximize'"):
        trainer.hyperparameter_search(space, n_trials=1)
    best = trainer.hyperparameter_search(
        space, n_trials=1, direction="maximize", hp_name=lambda trial: f"trial-{trial.number}"
    )
    scored = [line["eval_mean_iou"] for line in trainer.state.log_history if "eval_mean_iou" in line]
    assert [best.objective] == scored


def test_a_trial_without_a_score_has_failed(tmp_path: Path, labels: LabelSet) -> None:
    """Where no pixel is valid; the other trials go on."""
    trainer = make_trainer(tmp_path, labels, model_init=lambda: tiny_model(labels), max_steps=1, save_strategy="no")
    void = [dict(sample) for sample in trainer.eval_dataset]
    for sample in void:
        sample["labels"] = torch.full_like(sample["labels"], 255)
    trainer.eval_dataset = void
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(ValueError, match="No trials are completed"):
        trainer.hyperparameter_search(space, n_trials=2, direction="maximize", storage=storage, study_name="void")
    study = optuna.load_study(study_name="void", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


def test_every_model_is_checked(tmp_path: Path, labels: LabelSet) -> None:
    def model_init(trial: optuna.Trial | None) -> nn.Module:
        return tiny_model(labels if trial is None else LabelSet(["a", "b"]))

    trainer = make_trainer(tmp_path, labels, model_init=model_init)
    with pytest.raises(UserError, match="The model has 2 outputs for 3 classes"):
        trainer.hyperparameter_search(space, n_trials=1, direction="maximize")


def test_the_example_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "_search(" in code]
    for shown, shorter in {
        'name="synthetic_pet"': 'name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 6, "size": 64}',
        "max_steps=100": "max_steps=1, per_device_train_batch_size=2",
        "n_trials=10": "n_trials=1",
    }.items():
        assert code.count(shown) == 1
        code = code.replace(shown, shorter)
    exec(code, {})


def test_without_optuna_stock_says_what_to_install(
    tmp_path: Path, labels: LabelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, labels, model_init=lambda: tiny_model(labels))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RuntimeError, match=r"To install optuna run `pip install optuna`"):
        trainer.hyperparameter_search(space, n_trials=1, direction="maximize")
