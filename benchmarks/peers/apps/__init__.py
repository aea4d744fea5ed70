"""What runs inside the other servers, by their own interpreters: nothing here imports macrofleet."""
