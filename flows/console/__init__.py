"""`macrofleet console`: the control plane's pages for operators, rendered on the server, in a process of its own.

It reads the store, the key database, MLflow and Prefect's REST, and asks servers over HTTP. Traffic does not need it.
"""
