"""Draws a run's report again, from what is in its folder.

python -m report runs/NAME
"""

import argparse
import logging
from pathlib import Path

from utils.cli import run_command
from utils.errors import UserError

logger = logging.getLogger(f"las.{__name__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="runs/NAME", help="folder of a run")
    folder = parser.parse_args().folder
    if not (folder / "metrics.csv").exists() and not list(folder.glob("predictions-*.csv")):
        raise UserError(f"{folder}: found neither metrics.csv nor predictions-*.csv, expected the folder of a run")

    from report.build import make_report  # takes seconds to import, and is not needed for --help

    make_report(folder)
    logger.info(str(folder / "report.html"))


if __name__ == "__main__":
    run_command(main)
