"""The engine: models in memory under a budget, leased to requests, scored in batches."""
