"""The report of a comparison: tables for the terminal, figures, one HTML page. Reads `Comparison`, nothing else."""
