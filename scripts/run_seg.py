"""The command line of hfseg with all that it does behind one set of options; `hfseg --help` has it as commands.

    python scripts/run_seg.py --config configs/quickstart.yaml
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml data.root=~/data/pets train.max_steps=1000
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml --check
    python scripts/run_seg.py --config configs/study/pets.yaml [--arm NAME]
    python scripts/run_seg.py --push runs/quickstart hub.repo=me/name
    python scripts/run_seg.py --predict photos --model runs/quickstart --output predictions

Exit codes: 0 done; 2 something you can fix, said in one message; 130 interrupted; anything else is a bug of hfseg.
"""

import argparse
import sys

from hfseg.command import check, evaluate, exit_code, lossy_output, predict, push, study, train
from hfseg.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and score a segmentation model.",
        epilog="Overrides are key.sub=value, such as train.max_steps=100 or 'output_dir=runs/run #2': text and paths "
        "as they are typed, everything else, such as [0.5, 2], as in YAML; null takes a value back.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of the run or study, see configs/")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="look for mistakes in all of the data; do not train")
    mode.add_argument("--eval-only", action="store_true", help="score the saved model again; do not train")
    mode.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run's last checkpoint; settings that change no result, such as workers, may differ",
    )
    mode.add_argument("--push", metavar="RUN_DIR", help="publish a finished run to hub.repo on the Hub")
    mode.add_argument(
        "--predict", nargs="+", metavar="IMAGES", help="segment a folder, a glob, a .txt list, or single images"
    )
    parser.add_argument("--arm", metavar="NAME", help="of a study, run only this arm, ARM-seedK or pretrain.NAME")
    parser.add_argument("--model", metavar="FOLDER_OR_ID", help="with --predict: a run, a model's folder or a Hub id")
    parser.add_argument("--output", metavar="DIR", help="with --predict: where masks, overlays and shares go")
    parser.add_argument("--batch-size", type=int, metavar="N", help="with --predict: images at a time (default 8)")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="with --predict: run the code that comes with the model"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change single keys of the config")
    arguments = parser.parse_intermixed_args()
    if [arguments.config, arguments.push, arguments.predict].count(None) != 2:
        parser.error("give --config FILE, --push RUN_DIR, or --predict IMAGES")
    prediction = (arguments.model, arguments.output)
    if None in prediction if arguments.predict else any((*prediction, arguments.batch_size is not None)):
        parser.error("--predict IMAGES needs --model and --output, and only it takes these and --batch-size")
    if arguments.trust_remote_code and not arguments.predict:
        parser.error("--trust-remote-code is for --predict; for a training set model.trust_remote_code=true")
    return arguments


def do(arguments: argparse.Namespace) -> None:
    if arguments.push is not None:
        push(arguments.push, arguments.overrides)
        return
    if arguments.predict is not None:
        size = 8 if arguments.batch_size is None else arguments.batch_size
        trust = arguments.trust_remote_code
        predict(arguments.predict, arguments.model, arguments.output, arguments.overrides, size, trust)
        return
    from hfseg.config import RunConfig

    config = RunConfig.load(arguments.config, arguments.overrides)
    if arguments.arm and config.study is None:
        raise UserError(f"--arm is for studies, and {arguments.config} has no `study`.")
    if arguments.check:
        check(config)
    elif arguments.eval_only:
        evaluate(config)
    elif config.study is None:
        train(config, arguments.resume)
    else:
        study(config, arguments.arm)


def main() -> int:
    arguments = parse_arguments()
    with lossy_output():
        return exit_code(lambda: do(arguments))


if __name__ == "__main__":
    sys.exit(main())
