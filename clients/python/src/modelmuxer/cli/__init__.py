"""The ``mux`` command. Every command takes ``--json``; errors are one sentence on standard error and exit status 1."""

import sys


def main() -> None:
    """Runs the command."""
    try:
        from modelmuxer.cli.commands import mux
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"mux needs the package {error.name}: install modelmuxer-client[cli]")
    mux()
