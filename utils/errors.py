"""One kind of error for whatever a user can mend, and the wrapper that turns it into one line and exit code 2."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable

from utils.run.signals import INTERRUPTED, child_processes, interruptible, kill

# How torch, what it is built on, and OpenCV say in an error of a general type that memory ran out.
NO_MEMORY = re.compile(
    r"(?i)out of memory|can(no|')t allocate memory|not enough memory|std::bad_alloc|bad allocation|insufficient memory"
    r"|_ALLOC_FAILED|could not create a memory|unable to mmap|unable to allocate|MemoryError"
)
NO_THREAD = "can't start new thread"
OTHERS_ENDED = re.compile(r"(?i)connection (closed|reset) by peer|connection was likely closed")  # torch.distributed's


class UserError(Exception):
    """Bad input. The message is one line that names the file, flag or key at fault and the mend."""


class NoWeights(UserError):
    """The backbone's weights are neither given nor can they be downloaded."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are a `UserError`: one line, without the usage."""

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")


def run_main(main: Callable[[], None], *, lower: str = "") -> None:
    """Run a program's `main`; a `UserError` becomes one line on stderr and exit code 2.

    A full or read-only disk (any `OSError` of the system) is reported the same way, and so is want of memory: they too
    are for the user to mend. Everything else is a bug and keeps its traceback. However `main` ends, so do the processes
    that it has started.

    Args:
        lower: the flags of the program by which it takes less memory, for its user.
    """
    try:
        with interruptible():
            main()
    except UserError as error:
        _exit_with(str(error))
    except BrokenPipeError:  # whoever reads our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = _message(error, lower)
        if message is None:
            raise
        _exit_with(message)
    finally:
        kill(child_processes())


def _message(error: Exception, lower: str) -> str | None:
    """What to tell the user about an error that is no bug; None for a bug."""
    less = f"lower {lower}" if lower else "end other programs, or use a machine with more"
    if is_out_of_memory(error):
        return f"out of {_memory(str(error))}; {less}"
    if (isinstance(error, OSError) and error.errno == errno.EAGAIN) or NO_THREAD in str(error):
        return f"no more processes or threads can be started here; {less}, or raise the limit (ulimit -u)"
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "while reading or writing"
        return f"{where}: {error.strerror}; free space or check permissions"
    if isinstance(error, RuntimeError) and OTHERS_ENDED.search(str(error)):
        return "another process of this run has ended; its own message says why"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the machine or of a GPU ran out; libraries raise several types for it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    general = isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] in ("cv2", "safetensors_rust")
    return isinstance(error, MemoryError) or (general and bool(NO_MEMORY.search(str(error))))


def _memory(said: str) -> str:
    """Whose memory, and how much was asked for where a library says so."""
    kind = "memory of the GPU" if re.search("CUDA|HIP|CUBLAS|CUDNN", said) else "memory"
    asked = re.search(r"(?i)allocate ([\d.]+) ?([a-z]*b)", said)  # 2.50 GiB; 1073741824 bytes
    if not asked:
        return kind
    amount, unit = asked.groups()
    return f"{kind} ({f'{float(amount) / 1e9:.2f} GB' if unit == 'b' else f'{amount} {unit}'} more were asked for)"


def _exit_with(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
