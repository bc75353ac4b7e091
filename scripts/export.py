"""Export a trained model to ONNX, as `hfseg export` does.

    python scripts/export.py runs/quickstart --onnx quickstart.onnx
    python scripts/export.py nvidia/segformer-b0-finetuned-ade-512-512 --onnx b0.onnx --argmax

The file is compared with the model in onnxruntime before it gets its name. Exit codes: 0 done; 1 the comparison
failed, and nothing was written; 2 something you can fix, said in one message; 130 interrupted.
"""

import argparse
import sys

from hfseg.command import exit_code, export, lossy_output


def main() -> int:
    parser = argparse.ArgumentParser(description="Export a trained segmentation model to ONNX.")
    parser.add_argument("model", metavar="MODEL", help="a run, a model's folder or a Hub id")
    parser.add_argument("--onnx", required=True, metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--argmax", action="store_true", help="add the output `ids`: classes at the input's size")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    given = parser.parse_args()
    with lossy_output():
        return exit_code(lambda: export(given.model, given.onnx, given.argmax, given.trust_remote_code))


if __name__ == "__main__":
    sys.exit(main())
