"""`mux`, as a module that the zygote can fork."""

import sys

from modelmuxer.cli import main

if __name__ == "__main__":
    sys.argv[0] = "mux"
    main()
