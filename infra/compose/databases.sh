#!/bin/bash
# Run by PostgreSQL's image when its volume is new: a database for each of those that keep state, and a role that owns it and
# may look into no other.
set -euo pipefail

for name in macrofleet mlflow prefect; do
    psql --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 --set name="$name" \
        --set password="$(cat "${SECRETS:-/run/secrets}/${name}_database_password")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done

# MLflow's users are apart from its runs: both have tables of their own making.
psql --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 <<'SQL'
CREATE DATABASE mlflow_users OWNER mlflow;
REVOKE ALL ON DATABASE mlflow_users FROM PUBLIC;
SQL
