"""The data plane: bundles in, suggestions out. Needs the object store and nothing else."""
