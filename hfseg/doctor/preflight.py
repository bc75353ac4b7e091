"""Every check of a run before its first step: what cannot work is refused before anything long."""

from pathlib import Path

from rich.console import Console
from transformers import TrainingArguments

from hfseg.config import RunConfig
from hfseg.console import say
from hfseg.doctor.check import check_run_data
from hfseg.errors import UserError
from hfseg.hub import check_access
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics, flat_metrics
from hfseg.runs import check_output_dir, check_same_classes, check_same_run
from hfseg.training import check_lora, check_streaming, check_worker_memory, training_arguments


def preflight(config: RunConfig, resume: bool, eval_only: bool) -> TrainingArguments:
    """Whether settings, folder, Hub and machine let the run start; writes nothing.

    Returns:
        `train:` as the Trainer takes it.

    Raises:
        UserError: what cannot work, by its key.
    """
    if config.study is not None:
        raise UserError("This config has a `study`, which is several runs: hfseg.run_study runs it.")
    args = training_arguments(config)
    check_streaming(config, args)
    if not eval_only:
        check_lora(config, args)
    if not config.output_dir.exists():
        check_output_dir(config, resume, eval_only)  # nothing is made where there is nothing to go on from
    if config.hub.repo is not None and not eval_only and args.process_index == 0:
        check_access(config.hub.repo, config.hub.private, config.hub.create_pr, revision=config.hub.revision)
    check_worker_memory(config, args)
    return args


def check_start(config: RunConfig, args: TrainingArguments, resume: bool, eval_only: bool) -> str | None:
    """What the run's folder holds, and a look at some of the masks; prints what differs and the warnings.

    No other process may write to the folder. `args` are those from `preflight`.

    Returns:
        The last whole checkpoint, where the run is to resume.

    Raises:
        UserError: another run is in the folder, there is nothing to go on from, or the data has errors.
    """
    checkpoint = check_output_dir(config, resume, eval_only)
    if resume or eval_only:
        check_settings(config, args, eval_only)
    if not eval_only and not config.data.streaming:
        report = check_run_data(config.data, quick=True)
        report.raise_errors()
        if args.process_index == 0:
            report.print_findings(Console())
    return checkpoint


def check_settings(config: RunConfig, args: TrainingArguments, eval_only: bool) -> None:
    """Raises UserError where the saved run is another one, see `check_same_run`; prints what differs and may."""
    differing = check_same_run(config, eval_only)
    if differing is not None and args.process_index == 0:
        say(differing)


def check_classes(config: RunConfig, args: TrainingArguments, labels: LabelSet, weights: str | None) -> None:
    """Whether the config, and the weights that the run goes on from, are for these classes.

    `weights` is the folder of a checkpoint or of the run's model.

    Raises:
        UserError: class weights for another number of classes, a best-model metric that does not exist, or weights
            that were trained for other classes.
    """
    class_weights = config.loss.class_weights
    if class_weights is not None and (len(class_weights) != labels.num_labels or not any(class_weights)):
        raise UserError(
            f"loss.class_weights={class_weights}: one for each of {labels.num_labels} classes, not all zero."
        )
    known = ["loss", *flat_metrics(SegMetrics(labels, boundary=config.eval.boundary).compute(), labels.names)]
    if args.metric_for_best_model is not None and args.metric_for_best_model.removeprefix("eval_") not in known:
        raise UserError(
            f"train.metric_for_best_model={args.metric_for_best_model!r} does not exist; "
            f"choose one of {', '.join(known)}."
        )
    if weights is not None:
        check_same_classes(Path(weights), labels)
