"""Object stores: one port, two adapters (a local folder, S3)."""
