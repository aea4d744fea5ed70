"""Backup: the store and the control plane's databases, kept elsewhere and brought back."""
