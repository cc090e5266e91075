"""Export the block of a checkpoint of train.py: half precision, `.safetensors`, its origin in the header.

    python -m utils.export --checkpoint outputs/train/last.pt --output_path block.safetensors

Give the result to eval.py as --resume_path, or to train.py as --init_path.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.block import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

from pathlib import Path

from utils.errors import UserError, run_main
from utils.flags.block import parse_args
from utils.run.checkpoints import BLOCK_KEY, load_tensors, save_tensors

# Options whose value is a path: only its last part is written. Options that say where the run was written are left out.
PATH_OPTIONS = {"config", "basepath", "train_list", "dino_path", "init_path"}
OUTPUT_OPTIONS = {"output_path", "overwrite", "resume_path"}


def export_block(checkpoint: str | Path, output: str | Path) -> None:
    """Write the block of a checkpoint of train.py; the header has its step, configuration, backbone and tau_auto.

    Paths of the machine it was trained on are shortened to their last part.

    Raises:
        UserError: the file is not a checkpoint of train.py, or the output cannot be written.
    """
    content = load_tensors(checkpoint)
    origin = {key: content.get(key) for key in ("step", "config", "backbone", "tau_auto")}
    if not isinstance(content.get("blocks"), dict) or None in origin.values():
        raise UserError(f"--checkpoint {checkpoint}: not made by train.py; give its last.pt")
    if Path(output).suffix != ".safetensors":
        raise UserError(f"--output_path {output}: must end in .safetensors")
    origin["config"] = {key: value for key, value in content["config"].items() if key not in OUTPUT_OPTIONS}
    for key in PATH_OPTIONS & content["config"].keys():
        origin["config"][key] = content["config"][key] and Path(content["config"][key]).name
    save_tensors(output, content["blocks"], key=BLOCK_KEY, metadata=origin)


def main() -> None:
    args = parse_args(__doc__)
    export_block(args.checkpoint, args.output_path)
    print(f"{args.output_path}: {args.output_path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run_main(main)
