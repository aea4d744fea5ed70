"""`make bench-report`: tables, plots and CSV files out of stored results, the same for the same results."""
