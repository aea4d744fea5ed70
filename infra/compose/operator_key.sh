#!/bin/sh
# The operator's key that Prometheus asks with: made once, kept in the volume that it shares with Prometheus. `create` prints
# it even where it could not be published, so what is printed is kept, and publishing is repeated every time.
set -eu
umask 022
file=$1
# Prometheus is another user.
chmod 0755 "$(dirname "$file")"

if [ ! -s "$file" ]; then
    macrofleet keys create --scope operator --note Prometheus > "$file.new" || [ -s "$file.new" ]
    mv "$file.new" "$file"
fi
macrofleet keys publish
