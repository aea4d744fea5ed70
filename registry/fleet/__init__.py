"""The fleet: which version each tenant serves, its past, and what an operator does to it."""
