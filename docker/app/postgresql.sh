#!/bin/sh
# Starts PostgreSQL in a container, as its user: postgresql.sh APP DATABASE_SOCKET. At the first start it makes the cluster, and
# at each one the database, the owner and the logins with the passwords that the stack has.
set -eu
app=$1 sockets=$2
programs=$(echo /usr/lib/postgresql/*/bin)
version=$(basename "$(dirname "$programs")")
data=/var/lib/postgresql/$version
conf=/etc/coldframe-postgresql
if [ ! -e "$data/PG_VERSION" ]; then
    for other in /var/lib/postgresql/*/PG_VERSION; do
        [ -e "$other" ] || continue
        echo "postgresql: the volume has data of PostgreSQL $(cat "$other"), and the image has $version. Go back to the Debian of before" \
            "(DEBIAN=), or dump and restore the database." >&2
        exit 1
    done
    rm -rf "$data.new"
    "$programs/initdb" --pgdata="$data.new" --encoding=UTF8 --locale=C.UTF-8 --auth=peer >/dev/null
    echo "include_dir '$conf/conf.d'" >>"$data.new/postgresql.conf"
    mv "$data.new" "$data"
fi
rm -f "$sockets"/.s.PGSQL.* # nobody else has this folder
set -- -D "$data" -c log_destination=stderr -c "hba_file=$conf/pg_hba.conf" -c "ident_file=$conf/pg_ident.conf"

# Only this script reaches the server while it is prepared.
private=$(mktemp -d)
"$programs/postgres" "$@" -c "unix_socket_directories=$private" &
server=$!
for _ in $(seq 600); do
    "$programs/pg_isready" --quiet --host="$private" && break
    kill -0 "$server" || exit 1
    sleep 0.1
done
"$programs/psql" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host="$private" --username=postgres --dbname=postgres --set=app="$app" <<'SQL'
\set password `cat /run/credentials/database_password`
\set other `cat /run/credentials/database_password_other`
SELECT format('CREATE ROLE %I NOLOGIN', :'app') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'app') \gexec
SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', name, :'app') FROM unnest(ARRAY[:'app' || '_a', :'app' || '_b']) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
SELECT format('ALTER ROLE %I SET role = %I', name, :'app') FROM unnest(ARRAY[:'app' || '_a', :'app' || '_b']) AS name \gexec
\set login `cat /run/credentials/database_login`
SELECT format('ALTER ROLE %I PASSWORD %L', name, CASE name WHEN :'login' THEN :'password' ELSE :'other' END)
    FROM unnest(ARRAY[:'app' || '_a', :'app' || '_b']) AS name \gexec
SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', :'app', :'app')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'app') \gexec
SQL
kill -INT "$server"
wait "$server"
rm -r "$private"
exec "$programs/postgres" "$@" -c "unix_socket_directories=$sockets"
