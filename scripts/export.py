"""Export a trained model to ONNX: a thin layer over `hfseg.inference.onnx`.

    python scripts/export.py runs/quickstart --onnx quickstart.onnx
    python scripts/export.py nvidia/segformer-b0-finetuned-ade-512-512 --onnx b0.onnx --argmax

The file is compared with the model in onnxruntime before it gets its name. Exit codes: 0 done; 1 the comparison
failed, and nothing was written; 2 something you can fix, said in one message; 130 interrupted.
"""

import argparse
import sys


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export a trained segmentation model to ONNX.")
    parser.add_argument("model", metavar="MODEL", help="a run, a model's folder or a Hub id")
    parser.add_argument("--onnx", required=True, metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--argmax", action="store_true", help="add the output `ids`: classes at the input's size")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()  # before anything heavy is imported: --help answers at once
    from hfseg.reporting import lossy_output

    with lossy_output():
        return exit_code(arguments)


def exit_code(arguments: argparse.Namespace) -> int:
    """Exports, and says in one message why not."""
    from hfseg import UserError
    from hfseg.inference import ParityError, export_onnx

    try:
        report = export_onnx(arguments.model, arguments.onnx, arguments.argmax, arguments.trust_remote_code)
    except (UserError, ParityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(
        f"{arguments.onnx}: equal to the model in {len(report['cases'])} cases, largest difference "
        f"{report['max_difference']:.1e} (allowed {report['tolerance']:g}); {report['export_seconds']} s to export, "
        f"{report['parity_seconds']} s to compare"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
