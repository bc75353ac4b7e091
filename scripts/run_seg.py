"""Command line of hfseg: a thin layer over `hfseg.run`.

    python scripts/run_seg.py --config configs/quickstart.yaml
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml data.root=~/data/pets train.max_steps=1000
    python scripts/run_seg.py --config configs/pets/segformer_b0.yaml --check
    python scripts/run_seg.py --config configs/study/pets.yaml [--arm NAME]

Exit codes: 0 done; 2 something you can fix, said in one message; 130 interrupted; anything else is a bug of hfseg.
"""

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and score a segmentation model.",
        epilog="Overrides are key.sub=value with YAML values, such as train.max_steps=100 or model.size=b2.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the run, see configs/")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="look for mistakes in all of the data; do not train")
    mode.add_argument("--eval-only", action="store_true", help="score the saved model; do not train")
    mode.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--arm", metavar="NAME", help="of a study, run only this arm, ARM-seedK or pretrain.NAME")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="change single keys of the config")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()  # before anything heavy is imported: --help answers at once
    from hfseg import RunConfig, UserError, check, check_study, run, run_study

    try:
        config = RunConfig.load(arguments.config, arguments.overrides)
        if arguments.arm and config.study is None:
            raise UserError(f"--arm is for studies, and {arguments.config} has no `study`.")
        if config.study is not None:
            if arguments.eval_only:
                raise UserError("--eval-only scores one run: give it the config of a run in the study's configs/.")
            check_study(config) if arguments.check else run_study(config, Path(__file__).resolve(), arguments.arm)
        elif arguments.check:
            check(config).raise_errors()
        else:
            run(config, resume=arguments.resume, eval_only=arguments.eval_only)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; --resume goes on from the last checkpoint, if there is one (a study: start it again)",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
