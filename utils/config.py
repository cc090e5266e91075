"""Parse command lines over recipes: a YAML file sets defaults, the command line wins, unknown keys are errors."""

import argparse
import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from utils import distributed
from utils.errors import NoWeights, OneLineParser, UserError

PROGRAMS = ("train", "eval")
CLIPS = {"train": "", "eval": "[CLIP ...] "}  # what a program takes without a flag
Settings = TypeVar("Settings")
RECIPES = Path(__file__).resolve().parent.parent / "configs"
EMBEDDED_RECIPE, CLIPS_RECIPE = RECIPES / "embedded.yaml", RECIPES / "own_video.yaml"
# Sharpness s of the training-free block. For the embedded backbone it was chosen by the number of clusters, not by
# masks. Videos of Sprites are more alike than real ones and need a larger s: on those for training s = 6 gives 11
# clusters a clip, 5.75 gives 8 and 6.25 gives 17.
DEFAULT_TEMPERATURE, EMBEDDED_TEMPERATURE, SPRITES_TEMPERATURE = 3.0, 4.75, 6.0
# Errors that PyYAML raises beside its own where a value does not fit its tag, such as `!!int x` or 2026-99-99.
_TAG_ERRORS = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
# Any of these options on the command line means that the embedded recipe is not wanted.
NOT_EMBEDDED = ("config", "dataset", "basepath", "davis_path", "backbone", "dino_path", "checkpoint_key", "train_list")
CLIPS_NOTICE = "note: settings are those of configs/own_video.yaml and of the flags; other settings: --help"
EMBEDDED_NOTICE = (
    "no data and no backbone given: using generated videos (Sprites) and the backbone embedded in this repository; "
    "to change a setting, also give --config configs/embedded.yaml; for DINO and DAVIS give {data} --dino_path FILE"
)
SPRITES_NOTICE = (
    "no data given: scoring against generated videos (Sprites); to change a setting, also give --config "
    "configs/embedded.yaml; for DAVIS give {data}"
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without_default = action.default is None or action.default is False
        return action.help if without_default else super()._get_help_string(action)


class Parser(OneLineParser):
    """The parser of train.py and eval.py, which takes `--config FILE`.

    The file maps option names, without dashes, to values. Keys at the top are for both programs; keys under `train:`
    or `eval:` are for that program alone. If the command line names no data, no weights and no file, the file is
    `EMBEDDED_RECIPE`, or `CLIPS_RECIPE` for clips, which eval.py takes without a flag. A line on stderr says so.

    Args:
        program: one of `PROGRAMS`.
        alternatives: groups of options that exclude each other; one of them on the command line also drops the others
            from the recipe.
        ineffective: pairs of options of which the first has no effect if the second is set; the first on the command
            line is then an error.
        needs: triples of an option, another, and the value of the other without which the first has no effect; the
            first on the command line is then an error.

    Attributes:
        main_group: the argument group that `--help` shows first.
        explicit: after `parse`, the options that the command line itself names, by `dest`.
    """

    def __init__(
        self, *, program: str, description: str, alternatives: tuple[tuple[str, ...], ...] = (),
        ineffective: tuple[tuple[str, str], ...] = (), needs: tuple[tuple[str, str, str], ...] = (),
    ):  # fmt: skip
        super().__init__(
            prog=f"{program}.py", usage=f"%(prog)s {CLIPS[program]}[--flag VALUE ...]", description=description,
            formatter_class=HelpFormatter, add_help=False,
        )  # fmt: skip
        self.program = program
        self.alternatives = alternatives
        self.ineffective, self.needs = ineffective, needs
        self.explicit: set[str] = set()
        self.main_group = self.add_argument_group("main flags")
        recipe = self.add_argument_group("recipe and help").add_argument
        recipe("--config", metavar="FILE", help="Take defaults from a YAML recipe of configs/; the command line wins.")
        recipe("-h", "--help", action="help", help="Print this text and exit.")

    def check(self) -> tuple[argparse.Namespace, set[str]]:
        """Refuse what `parse` refuses of the program's command line, or print its help and exit.

        Returns:
            The arguments, and the options that the command line itself names.
        """
        return self._parse(sys.argv[1:]), self.explicit

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse `argv` over the recipe that it names, if any.

        Raises:
            UserError: an unknown option or key, a value of the wrong kind, an unreadable recipe.
        """
        args = self._parse(argv)
        if args.config and "config" not in self.explicit:
            self._print_notice(args, getattr(args, "clips", []))
        return args

    def _parse(self, argv: list[str]) -> argparse.Namespace:
        _refuse_empty_values(argv)
        explicit = self.explicit = self._options_in(argv)
        clips = getattr(self.parse_intermixed_args(argv), "clips", [])
        path = self._recipe_path(explicit, argv, clips)
        replaced = {name for group in self.alternatives if explicit & set(group) for name in group}
        if clips and "config" not in explicit and "dino_path" in explicit:
            replaced.add("backbone")  # the file is hardly one for the embedded backbone, which has weights
        # The recipe is parsed as a command line of its own, so that the same types and checks apply.
        recipe = self.parse_args(self._recipe_arguments(path, without=replaced) if path else [])
        vars(recipe).pop("clips", None)
        args = self.parse_intermixed_args(argv, namespace=recipe)
        args.config = path
        self._check_effect(explicit, args)
        return args

    def _check_effect(self, explicit: set[str], args: argparse.Namespace) -> None:
        for option, other in self.ineffective:
            if option in explicit and (value := getattr(args, other)):
                self.error(f"--{option}: has no effect beside --{other} {value}; give one of the two")
        for option, other, needed in self.needs:
            if option in explicit and (value := getattr(args, other)) != needed:
                self.error(f"--{option}: has no effect beside --{other} {value}; give --{other} {needed}")

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`, with a hint if a flag of several values has taken a clip for one of them."""
        taken = re.search(r"argument --\w+: invalid [^']*'([^']+)'", message)
        if CLIPS[self.program] and taken and Path(taken[1]).exists():
            message += "; give clips before the flags"
        super().error(message)

    def _recipe_path(self, explicit: set[str], argv: list[str], clips: list[str]) -> str | None:
        if "config" in explicit:
            chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            chosen.error = self.error
            chosen.add_argument("--config")
            return chosen.parse_known_args(argv)[0].config
        if clips:
            return str(CLIPS_RECIPE)
        if explicit & {*NOT_EMBEDDED, "help"}:
            return None
        return str(EMBEDDED_RECIPE)

    def _print_notice(self, args: argparse.Namespace, clips: list[str]) -> None:
        if distributed.is_main() and clips:
            print(CLIPS_NOTICE, file=sys.stderr, flush=True)
        elif distributed.is_main():
            notice = SPRITES_NOTICE if getattr(args, "predictions", None) else EMBEDDED_NOTICE
            data = {"train": "--basepath VIDEOS", "eval": "--davis_path DAVIS"}[self.program]
            print(notice.format(data=data), file=sys.stderr, flush=True)

    def _options_in(self, argv: list[str]) -> set[str]:
        """List the options that a command line names, by `dest`."""
        flags = {flag: action.dest for action in self._actions for flag in action.option_strings}
        return {flags[word.split("=")[0]] for word in argv if word.split("=")[0] in flags}

    def _recipe_arguments(self, path: str, *, without: set[str]) -> list[str]:
        options = {action.dest: action for action in self._actions if action.option_strings}
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


def _refuse_empty_values(argv: list[str]) -> None:
    """Refuse an empty word of a command line, which is what a shell variable gives that is not set."""
    for before, word in zip(["", *argv], argv, strict=False):
        if not word or re.fullmatch(r"--\w+=", word):
            flag = word.rstrip("=") or (before if before.startswith("--") else "a value")
            raise UserError(f"{flag}: is empty; give a value or leave it out")


def load_recipe(path: str, program: str) -> dict[str, object]:
    """Read the keys of a recipe that apply to one of `PROGRAMS`."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file; check the path, or choose one of configs/") from error
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path}: is not text in UTF-8; give a YAML file") from error
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


def settings_from(flags: Mapping[str, Any], settings: type[Settings]) -> Settings:
    """Fill a settings dataclass with the values of the flags, name -> value, that have its fields' names."""
    return settings(**{field.name: flags[field.name] for field in fields(settings)})


def choose_temperature(backbone: str, dataset: str) -> float:
    """Return the sharpness s that holds if --temperature is not given."""
    if backbone != "embedded":
        return DEFAULT_TEMPERATURE
    return SPRITES_TEMPERATURE if dataset == "sprites" else EMBEDDED_TEMPERATURE


@contextmanager
def offer_embedded(script: str, flags: Mapping[str, Any]) -> Iterator[None]:
    """Add to a `NoWeights` error a command that does the same with the embedded backbone, which needs no weights.

    Args:
        script: the launcher of the command.
        flags: name -> value of the flags that the command repeats, but for those that are None; the recipe sets the
            others.

    Raises:
        UserError: in place of `NoWeights`; paths in its command are relative to the current folder.
    """
    try:
        yield
    except NoWeights as error:
        folder = EMBEDDED_RECIPE.parents[1]
        clips = flags.get("clips") or []
        words = ["bash", os.path.relpath(folder / script), *clips]
        words += [] if clips else ["--config", os.path.relpath(EMBEDDED_RECIPE)]
        for name, value in flags.items():
            if value is not None and name != "clips" and not (clips and name in ("dataset", "split", "basepath")):
                words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
        raise UserError(f"{error}; or use the small one of this repository: {shlex.join(words)}") from error
