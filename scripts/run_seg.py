"""Command line of hfseg: a thin layer over `hfseg.run`.

    python scripts/run_seg.py --config configs/quickstart.yaml
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml data.root=~/data/pets train.max_steps=1000
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml --check
    python scripts/run_seg.py --push runs/quickstart hub.repo=me/name

Exit codes: 0 done; 2 something you can fix, said in one message; 130 interrupted; anything else is a bug of hfseg.
"""

import argparse
import sys


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and score a segmentation model.",
        epilog="Overrides are key.sub=value with YAML values, such as train.max_steps=100 or model.size=b2.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of the run, see configs/")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="look for mistakes in all of the data; do not train")
    mode.add_argument("--eval-only", action="store_true", help="score the saved model; do not train")
    mode.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    mode.add_argument("--push", metavar="RUN_DIR", help="publish a finished run to hub.repo on the Hub")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change single keys of the config")
    arguments = parser.parse_intermixed_args()
    if (arguments.config is None) == (arguments.push is None):
        parser.error("give --config FILE, or --push RUN_DIR")
    return arguments


def main() -> int:
    arguments = parse_arguments()  # before anything heavy is imported: --help answers at once
    from hfseg import RunConfig, UserError, check, publish_finished, run

    try:
        if arguments.push is not None:
            publish_finished(arguments.push, arguments.overrides)
            return 0
        config = RunConfig.load(arguments.config, arguments.overrides)
        if arguments.check:
            check(config).raise_errors()
        else:
            run(config, resume=arguments.resume, eval_only=arguments.eval_only)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
