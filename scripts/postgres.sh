# What scripts share that need PostgreSQL. To be sourced, at the top of the repository, with `program` as the name to
# speak under. It finds PostgreSQL's programs or installs them, starts a throw-away cluster on a free loopback port as an
# unprivileged user, names it in USERMGR_TEST_POSTGRES_URL, and removes it at the end, also on failure and Ctrl-C.
# Its settings are in `postgres_settings`; unless a script sets them, commits are quick and not durable.
# What it leaves: `folder` for files that are removed too, `remove` for other paths to remove, and the functions `say`,
# `die`, `install`, `as_root` and `run`.
# shellcheck shell=bash

say() { printf '%s: %s\n' "$program" "$*" >&2; }
die() { say "$*"; exit 1; }

command -v cargo >/dev/null || die 'cargo is missing: install Rust from https://rustup.rs'

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"; else return 1; fi
}

install() {
    command -v apt-get >/dev/null || die "$1 is missing and there is no apt-get here: install it by hand"
    say "installing $1"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || die "$1 is missing: run apt-get install $1 as root"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2 \
        || die "$1 could not be installed"
}

command -v cc >/dev/null || install build-essential
command -v curl >/dev/null || install curl

find_postgres() {
    local folder
    for folder in "$(pg_config --bindir 2>/dev/null || true)" \
        $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            printf '%s' "$folder"
            return
        fi
    done
}

bin=$(find_postgres)
if [ -z "$bin" ]; then
    install postgresql
    bin=$(find_postgres)
fi
[ -n "$bin" ] || die "PostgreSQL's initdb and postgres were not found"

[ -n "${postgres_settings+set}" ] || postgres_settings=(-F -c synchronous_commit=off -c full_page_writes=off)
folder=
remove=()
postgres=
tests=

# Everything that was started here ends here. The tests first: they are a process group of their own, with rustc, the
# test programs and whatever those started.
cleanup() {
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$tests" ]; then
        kill -TERM -- "-$tests" 2>/dev/null || true
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 -- "-$tests" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL -- "-$tests" 2>/dev/null || true
        wait "$tests" 2>/dev/null || true
    fi
    if [ -n "$postgres" ]; then
        kill -QUIT "$postgres" 2>/dev/null || true
        wait "$postgres" 2>/dev/null || true
        # The one that took its place, if it was restarted.
        postgres=$(head -n 1 "$folder/data/postmaster.pid" 2>/dev/null || true)
        while [ -n "$postgres" ] && kill -QUIT "$postgres" 2>/dev/null; do sleep 0.1; done
    fi
    [ -z "$folder" ] || rm -rf "$folder" "${remove[@]}"
}
trap cleanup EXIT
trap 'cleanup; exit 129' HUP
trap 'cleanup; exit 130' INT
trap 'cleanup; exit 143' TERM

# own_group COMMAND...: starts it in a process group of its own, so that Ctrl-C reaches this script only, which then ends
# the group. (Without job control bash starts what is in the background deaf to Ctrl-C.)
own_group() {
    set -m
    "$@" </dev/null &
    set +m
}

# The cluster belongs to somebody without rights: PostgreSQL refuses to run as root.
folder=$(mktemp -d "${TMPDIR:-/tmp}/usermgr-test.XXXXXX")
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$folder"
    as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
else
    as_user=(env)
fi

(cd "$folder" && exec "${as_user[@]}" "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C) \
    >"$folder/initdb.log" 2>&1 \
    || { cat "$folder/initdb.log" >&2; die 'initdb failed'; }

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000)) # below the ports that connections are given
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s' "$port"; return; }
    done
}

for _ in 1 2 3 4 5; do
    port=$(free_port)
    # Each link of the chain replaces itself, so that $! is the server.
    own_group "${as_user[@]}" "$bin/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "$folder" \
        -c max_connections=400 "${postgres_settings[@]}" >"$folder/postgres.log" 2>&1
    postgres=$!
    for _ in $(seq 150); do
        kill -0 "$postgres" 2>/dev/null || break
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && grep -q 'ready to accept' "$folder/postgres.log"; then
            break 2
        fi
        sleep 0.1
    done
    kill -QUIT "$postgres" 2>/dev/null || true
    wait "$postgres" 2>/dev/null || true
    postgres=
done
[ -n "$postgres" ] || { cat "$folder/postgres.log" >&2; die 'PostgreSQL did not start'; }
say "PostgreSQL of $bin on 127.0.0.1:$port, removed afterwards"

export USERMGR_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres"

# In the background and waited for, so that a signal is answered at once and not after the tests.
run() {
    own_group "$@"
    tests=$!
    local status=0
    wait "$tests" || status=$?
    tests=
    return "$status"
}
