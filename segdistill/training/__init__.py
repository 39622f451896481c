"""The two-player training: state, steps, loop, checkpoints, logs."""
