"""Comparing methods: rungs of a ladder, runs of several seeds, paired differences. Knows run folders, not `Config`."""
