"""What the command line does, one module a command. Together with `build/` the only readers of `Config`."""
