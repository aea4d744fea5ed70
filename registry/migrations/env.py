"""What Alembic runs: the steps, over the connection and in the transaction that `registry.database` hands over."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
