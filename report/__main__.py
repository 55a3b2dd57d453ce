"""python -m report runs/NAME: draws a run's report again."""

from report.build import main
from utils.cli import run_command

if __name__ == "__main__":
    run_command(main)
