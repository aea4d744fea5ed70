"""API keys: made in the control plane's database, published to the store for servers."""
