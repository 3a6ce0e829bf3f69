"""``python -m tests.performance [suite …]``, which `make bench` runs."""

from tests.performance.bench import main

if __name__ == "__main__":
    main()
