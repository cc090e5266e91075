"""The error for faults that the user can mend, and the wrapper that prints it as one line with exit code 2."""

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from utils.run.signals import INTERRUPTED, kill_processes, list_children, raise_on_interrupt

# Messages of torch, its libraries and OpenCV that memory ran out, in errors of a general type.
NO_MEMORY = re.compile(
    r"(?i)out of memory|can(no|')t allocate memory|not enough memory|std::bad_alloc|bad allocation|insufficient memory"
    r"|_ALLOC_FAILED|could not create a memory|unable to mmap|unable to allocate|MemoryError"
)
NO_THREAD = "can't start new thread"
OTHERS_ENDED = re.compile(r"(?i)connection (closed|reset) by peer|connection was likely closed")  # torch.distributed's
ONE_DASH = re.compile(r"-[A-Za-z]\w")  # a flag of several letters after one dash; a negative number is none
MOST_NAMED = 3  # flags that an error suggests; more of them do not help


class UserError(Exception):
    """Bad input. The message is one line that names the file, flag or key at fault and the mend."""


class NoWeights(UserError):
    """No weights of the backbone were given, and they cannot be downloaded."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are a `UserError`: one line, without the usage.

    Flags are written in full. Of one that does not exist, the error names those that begin so, or the most similar one.
    """

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        self._refuse_unknown_flags(args)
        return super().parse_args(args, namespace)

    def parse_intermixed_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        self._refuse_unknown_flags(args)
        return super().parse_intermixed_args(args, namespace)

    def _refuse_unknown_flags(self, args: Sequence[str] | None) -> None:
        """Refuse the first flag that does not exist, before argparse takes what follows it for something else."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in sys.argv[1:] if args is None else args:
            flag = word.partition("=")[0]
            if word == "--":  # all that follows is no flag
                return
            if (flag.startswith("--") or ONE_DASH.match(flag)) and " " not in flag and flag not in known:
                wanted = f"--{flag.lstrip('-')}"
                close = [name for name in known if name.startswith(wanted)]
                close = close[:MOST_NAMED] or difflib.get_close_matches(wanted, known, n=1)
                hint = f"; did you mean {' or '.join(close)}?" if close else ""
                self.error(f"{flag}: no such flag{hint}")


def run_main(main: Callable[[], None], *, lower: str = "") -> None:
    """Run a program's `main`; print a `UserError` as one line on stderr and exit with code 2.

    A full or read-only disk (any `OSError` of the system) and a lack of memory are reported the same way, since the
    user can mend them too. Everything else is a bug and keeps its traceback. Processes that `main` started are killed
    when it ends, however it ends.

    Args:
        lower: the flags of the program that reduce its memory, for the message.
    """
    try:
        with raise_on_interrupt():
            main()
            if sys.stdout:  # None where it was closed
                sys.stdout.flush()  # here, where a reader that has gone is no fault
    except UserError as error:
        _exit_with(str(error))
    except BrokenPipeError:  # the reader of our output, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = _explain(error, lower)
        if message is None:
            raise
        _exit_with(message)
    finally:
        kill_processes(list_children())


def exit_at_once() -> None:
    """End a program, after `run_main`, without the clean-up of torch, which takes 1 to 2.5 s for nothing."""
    if sys.stderr:
        sys.stderr.flush()
    os._exit(0)


def _explain(error: Exception, lower: str) -> str | None:
    """Explain an error that is not a bug to the user; return None for a bug."""
    less = f"lower {lower}" if lower else "end other programs, or use a machine with more"
    if is_out_of_memory(error):
        return f"out of {_describe_memory(str(error))}; {less}"
    if (isinstance(error, OSError) and error.errno == errno.EAGAIN) or NO_THREAD in str(error):
        return f"no more processes or threads can be started here; {less}, or raise the limit (ulimit -u)"
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "while reading or writing"
        return f"{where}: {error.strerror}; free space or check permissions"
    if isinstance(error, RuntimeError) and OTHERS_ENDED.search(str(error)):
        return "another process of this run has ended; its own message says why"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory of the machine or a GPU ran out; libraries raise several types."""
    if isinstance(error, OSError):  # Pillow's has no number
        return error.errno == errno.ENOMEM or (error.errno is None and bool(NO_MEMORY.search(str(error))))
    general = isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] in ("cv2", "safetensors_rust")
    return isinstance(error, MemoryError) or (general and bool(NO_MEMORY.search(str(error))))


def _describe_memory(said: str) -> str:
    """Name the kind of memory in a library's message, and the amount that was requested if it is given."""
    kind = "memory of the GPU" if re.search("CUDA|HIP|CUBLAS|CUDNN", said) else "memory"
    asked = re.search(r"(?i)allocate ([\d.]+) ?([a-z]*b)", said)  # 2.50 GiB; 1073741824 bytes
    if not asked:
        return kind
    amount, unit = asked.groups()
    return f"{kind} ({f'{float(amount) / 1e9:.2f} GB' if unit == 'b' else f'{amount} {unit}'} more were asked for)"


def _exit_with(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
