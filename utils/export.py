"""Reduce a checkpoint of train.py to its block: half precision, `.safetensors`, with its origin in the header.

    python -m utils.export --checkpoint outputs/train/last.pt --output_path block.safetensors

eval.py takes the result as --resume_path, train.py as --init_path.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import exit_on_interrupt

    exit_on_interrupt()

from pathlib import Path

from utils.errors import OneLineParser, UserError, run_main
from utils.run.checkpoints import BLOCK_KEY, load_tensors, save_tensors

PLACES = {"config", "basepath", "train_list", "dino_path", "init_path"}
DROPPED = {"output_path", "overwrite", "resume_path"}


def export_block(checkpoint: str | Path, output: str | Path) -> None:
    """Write the blocks of a checkpoint of train.py; the header keeps its step, configuration, backbone and tau_auto.

    Of what names places on one machine, only the last part of a path is kept, and where the run went not at all.

    Raises:
        UserError: not such a checkpoint, or the file cannot be written.
    """
    content = load_tensors(checkpoint)
    origin = {key: content.get(key) for key in ("step", "config", "backbone", "tau_auto")}
    if not isinstance(content.get("blocks"), dict) or None in origin.values():
        raise UserError(f"--checkpoint {checkpoint}: not made by train.py; give its last.pt")
    if Path(output).suffix != ".safetensors":
        raise UserError(f"--output_path {output}: must end in .safetensors")
    origin["config"] = {key: value for key, value in content["config"].items() if key not in DROPPED}
    for key in PLACES & content["config"].keys():
        origin["config"][key] = content["config"][key] and Path(content["config"][key]).name
    save_tensors(output, content["blocks"], key=BLOCK_KEY, metadata=origin)


def main() -> None:
    parser = OneLineParser(prog="python -m utils.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.pt or step_*.pt of train.py")
    parser.add_argument("--output_path", type=Path, required=True, help="the file to write")
    args = parser.parse_args()
    export_block(args.checkpoint, args.output_path)
    print(f"{args.output_path}: {args.output_path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run_main(main)
