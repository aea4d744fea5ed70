"""The local disk tier: what was copied from the store, verified, and how much of it stays."""
