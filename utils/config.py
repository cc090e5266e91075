"""Command lines with a recipe below them: a YAML file sets defaults, the command line wins, unknown keys are errors."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from utils import distributed
from utils.errors import NoWeights, OneLineParser, UserError

PROGRAMS = ("train", "eval")
# The recipe of the embedded default, and the options of which any one means that something else is wanted.
EMBEDDED_RECIPE = Path(__file__).resolve().parent.parent / "configs" / "embedded.yaml"
# s of the training-free point. Of the embedded backbone it was chosen by the number of clusters, not by masks: on the
# training videos of Sprites, which are more alike (11 clusters a clip; s = 5.75 gives 8, 6.25 gives 17), and on others.
DEFAULT_TEMPERATURE, EMBEDDED_TEMPERATURE, SPRITES_TEMPERATURE = 3.0, 4.75, 6.0
AUTO = "auto"  # in place of a number for --tau
# What PyYAML lets through besides its own errors where a value does not suit its tag, such as `!!int x` or 2026-99-99.
_TAG_ERRORS = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
NOT_EMBEDDED = ("config", "dataset", "basepath", "davis_path", "backbone", "dino_path", "checkpoint_key", "train_list")
EMBEDDED_NOTICE = (
    "no data and no backbone given: using generated videos (Sprites) and the backbone embedded in this repository; "
    "change one thing of that with --config configs/embedded.yaml; for DINO and DAVIS give {data} --dino_path FILE"
)
SPRITES_NOTICE = (
    "no data given: scoring against generated videos (Sprites); change one thing of that with --config "
    "configs/embedded.yaml; for DAVIS give {data}"
)


class Parser(OneLineParser):
    """The parser of train.py and eval.py: it takes `--config FILE`.

    The file is a mapping of option names to values, without dashes. Keys at the top are for both programs; those
    under `train:` or `eval:` for that program alone. Where the command line names neither data nor weights nor a
    file, it is `EMBEDDED_RECIPE`, and a line on stderr says so.

    Args:
        alternatives: groups of options of which one rules out the others; given on the command line, it also rules
            out those of the file.
        idle: pairs of options of which the first has no effect beside the second; given on the command line, it is
            an error.

    Attributes:
        given: after `parse`, the options that the command line itself names, by `dest`.
    """

    def __init__(
        self, *, program: str, description: str, alternatives: tuple[tuple[str, ...], ...] = (),
        idle: tuple[tuple[str, str], ...] = (),
    ):  # fmt: skip
        super().__init__(
            prog=f"{program}.py", description=description, allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        self.program = program
        self.alternatives = alternatives
        self.idle = idle
        self.given: set[str] = set()
        self.add_argument("--config", help="YAML recipe, see configs/; the command line wins over it")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse `argv` over the recipe it names, if any.

        Raises:
            UserError: an unknown option or key, a value of the wrong kind, an unreadable recipe.
        """
        given = self.given = self._given(argv)
        path = self._recipe_path(given, argv)
        replaced = {name for group in self.alternatives if given & set(group) for name in group}
        # The recipe becomes the start of the command line: same types, same checks, and what comes later wins.
        recipe = self._recipe_arguments(path, without=replaced) if path else []
        args = self.parse_args([*recipe, *argv])
        args.config = path
        self._check_idle(given, args)
        if path and "config" not in given:
            self._say_embedded(args)
        return args

    def _check_idle(self, given: set[str], args: argparse.Namespace) -> None:
        for option, other in self.idle:
            if option in given and (value := getattr(args, other)):
                self.error(f"--{option}: has no effect beside --{other} {value}; give one of the two")

    def _recipe_path(self, given: set[str], argv: list[str]) -> str | None:
        if "config" in given:
            chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            chosen.error = self.error
            chosen.add_argument("--config")
            return chosen.parse_known_args(argv)[0].config
        if given & {*NOT_EMBEDDED, "help"}:
            return None
        return str(EMBEDDED_RECIPE)

    def _say_embedded(self, args: argparse.Namespace) -> None:
        if distributed.is_main():
            notice = SPRITES_NOTICE if getattr(args, "predictions", None) else EMBEDDED_NOTICE
            data = {"train": "--basepath VIDEOS", "eval": "--davis_path DAVIS"}[self.program]
            print(notice.format(data=data), file=sys.stderr, flush=True)

    def _given(self, argv: list[str]) -> set[str]:
        """The options that a command line names, by `dest`."""
        flags = {flag: action.dest for action in self._actions for flag in action.option_strings}
        return {flags[word.split("=")[0]] for word in argv if word.split("=")[0] in flags}

    def _recipe_arguments(self, path: str, *, without: set[str]) -> list[str]:
        options = {action.dest: action for action in self._actions}
        arguments = []
        for key, value in load_recipe(path, self.program).items():
            if key not in options or key in ("help", "config"):
                close = difflib.get_close_matches(key, options, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise UserError(f"{path}: unknown key '{key}' for {self.prog}{hint}")
            if key not in without:
                arguments += _as_arguments(options[key], value, path)
        try:
            self.parse_args(arguments)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return arguments


def load_recipe(path: str, program: str) -> dict[str, object]:
    """The keys of a recipe that are for one program of `PROGRAMS`."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read ({error.__class__.__name__}); check the path") from error
    except (yaml.YAMLError, *_TAG_ERRORS) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not YAML ({detail}); mend the file") from error
    content = {} if content is None else content
    sections = [content] + [content.get(name) or {} for name in PROGRAMS] if isinstance(content, dict) else [content]
    if not all(isinstance(section, dict) for section in sections):
        raise UserError(f"{path}: must map option names to values, with sections 'train:' and 'eval:' at most")
    for key in (key for section in sections for key in section):
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} is no text; give the name of an option")
    shared = {key: value for key, value in content.items() if key not in PROGRAMS}
    return {**shared, **(content.get(program) or {})}


def _as_arguments(option: argparse.Action, value: object, path: str) -> list[str]:
    flag = option.option_strings[0]
    if value is None:
        return []
    if option.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise UserError(f"{path}: '{option.dest}' must be true or false")
        if isinstance(option, argparse.BooleanOptionalAction):
            return [flag if value else option.option_strings[1]]
        return [flag] if value else []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values):
        raise UserError(f"{path}: '{option.dest}' must be a number, a text, or a list of them")
    if any("\0" in str(item) for item in values):
        raise UserError(f"{path}: '{option.dest}' holds a null character; mend the file")
    if option.nargs is None and len(values) != 1:
        raise UserError(f"{path}: '{option.dest}' must be one value, not {len(values)}")
    # One word for a single value, so that a negative number or a leading dash is not taken for an option.
    return [f"{flag}={values[0]}"] if option.nargs is None else [flag, *map(str, values)]


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What backbone and block are made of: the same options for training and evaluation."""
    add = parser.add_argument_group("network").add_argument
    add(
        "--backbone",
        default="vit_small_patch8_224.dino",
        help="any timm ViT, or embedded: the small one in assets/",
    )
    add("--dino_path", help="weights of the backbone (.pth or .safetensors); without it timm downloads them")
    add("--checkpoint_key", help="which model of a training checkpoint given as --dino_path: teacher, student, ...")
    add("--image_stats", default="imagenet", choices=("imagenet", "reference"), help="image normalisation")
    add("--num_t", type=positive_int, default=1, help="spatio-temporal blocks, one on the other")
    add("--num_heads", type=positive_int, default=8, help="attention heads of a block")
    add(
        "--temperature",
        type=positive_float,
        help="s of the identity start, q = k = s LayerNorm(features); if not given, "
        f"{DEFAULT_TEMPERATURE:g}, with the embedded backbone {EMBEDDED_TEMPERATURE:g}, on Sprites "
        f"{SPRITES_TEMPERATURE:g}",
    )
    add("--device", default="auto", help="auto, cpu, cuda (one GPU per process), cuda:1, ...")
    add("--amp", default="none", choices=("none", "bf16", "fp16"), help="mixed precision")
    add("--seed", type=not_negative_int, default=0)


def usual_temperature(backbone: str, dataset: str) -> float:
    """The s of --temperature where it is not given."""
    if backbone != "embedded":
        return DEFAULT_TEMPERATURE
    return SPRITES_TEMPERATURE if dataset == "sprites" else EMBEDDED_TEMPERATURE


@contextmanager
def offer_embedded(script: str, args: argparse.Namespace, options: Sequence[str]) -> Iterator[None]:
    """Complete the error of weights that cannot be had by a command that needs none, to be typed in the same folder.

    Args:
        script: the launcher.
        options: of `args`, those that the command repeats where they have a value; the rest is as in the recipe.
    """
    try:
        yield
    except NoWeights as error:
        folder = EMBEDDED_RECIPE.parents[1]
        words = ["bash", os.path.relpath(folder / script), "--config", os.path.relpath(EMBEDDED_RECIPE)]
        for name in options:
            if (value := getattr(args, name)) is not None:
                words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
        raise UserError(f"{error}; or use the small one of this repository: {shlex.join(words)}") from error


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return int(text)


def not_negative_int(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return int(text)


def share(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return float(text)


def not_negative_float(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return float(text)


def positive_float(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return float(text)


def threshold(text: str) -> float | str:
    """A positive number, or `AUTO`."""
    return text if text == AUTO else positive_float(text)


def check_resolution(resolution: tuple[int, int], patch_size: tuple[int, int]) -> None:
    """Both sides (height, width) of a resolution must be multiples of the patch size.

    Raises:
        UserError: naming the nearest two resolutions that are.
    """
    below = [max(side // patch, 1) * patch for side, patch in zip(resolution, patch_size, strict=True)]
    above = [-(-side // patch) * patch for side, patch in zip(resolution, patch_size, strict=True)]
    if list(resolution) not in (below, above):
        raise UserError(
            f"--resolution {resolution[0]} {resolution[1]}: not a multiple of the patch size {patch_size[0]}; "
            f"nearest are {below[0]} {below[1]} and {above[0]} {above[1]}"
        )
