"""The one exception for everything a user can put right."""

import errno
import sys
from collections.abc import Callable

from utils.colours import coloured
from utils.stopping import Stopped

# A disk that is full, read-only, taken away or worn out.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


class UserError(Exception):
    """Bad input. The message names the file or key, what was found, what was expected and what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a `UserError` becomes one message and exit code 2, Ctrl-C and SIGTERM 130 and 143."""
    label = coloured("error:", "red", sys.stderr)
    try:
        main()
    except UserError as error:
        # From a worker of the DataLoader it comes with the worker's traceback before it.
        print(f"{label} {str(error).rpartition(f'{UserError.__name__}: ')[2].strip()}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0].strip()
        print(
            f"{label} a process that prepares batches ended ({reason}): mostly the machine has no memory left, where "
            "data.cache=mmap or fewer data.workers help. What was written is whole: the same command goes on",
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"{label} {error}; what was written is whole: make room or mend that, run it again", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
