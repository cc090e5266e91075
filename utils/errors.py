"""One kind of error for whatever a user can mend, and the wrapper that turns it into one line and exit code 2."""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message is one line that names the file, flag or key at fault and the mend."""


class NoWeights(UserError):
    """The backbone's weights are neither given nor can they be downloaded."""


def run_main(main: Callable[[], None]) -> None:
    """Run a program's `main`; a `UserError` becomes one line on stderr and exit code 2.

    A full or read-only disk (any `OSError` of the system) is reported the same way: it too is for the user to mend.
    Everything else is a bug and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        _exit_with(str(error))
    except BrokenPipeError:  # whoever reads our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno is None:
            raise
        _exit_with(f"{error.filename or 'while reading or writing'}: {error.strerror}; free space or check permissions")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _exit_with(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
