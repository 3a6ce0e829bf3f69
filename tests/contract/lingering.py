"""A program that SIGTERM does not end before a file is there: `python -m tests.contract.lingering <file>`."""

import signal
import sys
import time
from pathlib import Path


def main() -> None:
    """Says that it stands, and stays until the file is there."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("here", flush=True)
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    main()
