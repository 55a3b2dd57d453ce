"""Draws a run's report again, from what is in its folder, or a page with several runs beside each other.

python -m report runs/NAME                       # runs/NAME/report.html
python -m report runs/a runs/b runs/c            # runs/comparison.html: curves, settings that differ, results
"""

import argparse
import logging
from pathlib import Path

from utils.cli import run_command
from utils.errors import UserError

logger = logging.getLogger(f"las.{__name__}")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="runs/NAME", help="folders of runs")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="page with several runs (default: comparison.html beside the first)"
    )
    arguments = parser.parse_args()
    folders = list(dict.fromkeys(folder.resolve() for folder in arguments.folders))
    for folder in arguments.folders:
        if not (folder / "metrics.csv").exists() and not list(folder.glob("predictions-*.csv")):
            raise UserError(f"{folder}: found neither metrics.csv nor predictions-*.csv, expected the folder of a run")
    if arguments.output and len(folders) < 2:
        raise UserError("--output: found a single run, whose report is in its folder; expected two or more")

    if len(folders) > 1:
        from report.compare import write_comparison

        page = arguments.output or arguments.folders[0].parent / "comparison.html"
        try:
            write_comparison(folders, page)
        except Exception as error:  # as of a single run: a file that it is made from may be broken
            raise UserError(f"{page}: cannot be written ({type(error).__name__}: {error})") from error
        logger.info(str(page))
        return

    from report.build import make_report  # takes seconds to import, and is not needed for --help

    folder = arguments.folders[0]
    make_report(folder)
    logger.info(str(folder / "report.html"))


if __name__ == "__main__":
    run_command(main)
