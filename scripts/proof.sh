# shellcheck shell=bash
# Sourced by the proofs after `postgres.sh`: builds a proof and the server and copies both to a folder, where no build
# changes them meanwhile. The short forms take what the tests have built, the long ones the server as it is delivered.
#
#   build_proof prove-races "$folder" "$@"
build_proof() {
    local proof=$1 to=$2 profile=release
    shift 2
    case " $* " in *' --short '*) profile=dev ;; esac
    run cargo build --quiet --profile "$profile" -p usermgr-server -p usermgr-proofs --bins
    local built=${CARGO_TARGET_DIR:-target}/${profile/dev/debug}
    cp "$built/$proof" "$built/usermgr-server" "$to"
}
