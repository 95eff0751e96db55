#!/bin/sh
# Make the database in an empty data directory, then be the server.
set -e
export PATH=/usr/lib/postgresql/15/bin:$PATH
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile="$PASSWORD_FILE" --auth=scram-sha-256 --no-sync --no-instructions
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off "$@"
