"""A model at rest and in memory: bundles, programs, tensors, the runtime, and its ways to other platforms."""
