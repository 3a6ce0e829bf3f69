"""`services.fork_server`, as a module that the zygote can fork."""

from services.fork_server import main

if __name__ == "__main__":
    main()
