"""How the control plane's database came to its present schema; `registry.database` carries these steps out."""
