"""The one exception for everything a user can put right."""

import errno
import sys
from collections.abc import Callable

from utils.colours import coloured
from utils.stopping import Stopped

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class UserError(Exception):
    """Bad input. The message names the file or key, what was found, what was expected and what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a `UserError` becomes one message and exit code 2, Ctrl-C and SIGTERM 130 and 143."""
    label = coloured("error:", "red", sys.stderr)
    try:
        main()
    except UserError as error:
        print(f"{label} {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"{label} {error}; what was written before is whole: make room, run it again", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
