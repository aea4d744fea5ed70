"""HTTP faces over the data plane, and the layers that stand before each."""
