"""What the command line does, one module a command. Together with `build.py` the only readers of `Config`."""
