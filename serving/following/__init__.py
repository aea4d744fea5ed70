"""Following the fleet, beside requests: what is in memory and on disk comes to what each new fleet names."""
