#!/usr/bin/env bash
# Every flow by curl, against a running server whose mails go to a folder:
#
#   USERMGR_MAIL_URL=file:///tmp/mails USERMGR_CODES_RESEND_INTERVAL=0s cargo run -p usermgr-server
#   examples/walkthrough.sh http://127.0.0.1:8000/v1 /tmp/mails
set -euo pipefail

base=${1:-http://127.0.0.1:8000/v1}
mails=${2:-/tmp/mails}
address="walk-$(date +%s)-$$@example.org"
password='correct horse battery'

say() { printf '\n== %s\n' "$*"; }

# call STATUS METHOD PATH [curl options]: prints the answer and ends the walk when the status is another.
call() {
    local want=$1 method=$2 path=$3 answer status
    shift 3
    answer=$(curl -sS -X "$method" "$base$path" -w '\n%{http_code}' "$@")
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    printf '%s %s -> %s %s\n' "$method" "$path" "$status" "$answer" >&2
    [ "$status" = "$want" ] || { echo "expected $want" >&2; exit 1; }
    printf '%s' "$answer"
}

json() { call "$1" POST "$2" -H 'content-type: application/json' -d "$3" "${@:4}"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# newest PATTERN: what the newest mail to us that has such a line says there. Bodies are plain or base64 text.
newest() {
    local file text found
    for _ in $(seq 100); do
        for file in $(ls -t "$mails"/*.eml 2>/dev/null); do
            grep -q "$address" "$file" || continue
            text=$(tr -d '\r' <"$file" | sed -e ':a;/=$/{N;s/=\n//;ba}' -e 's/=3D/=/g')
            found=$(printf '%s\n' "$text" | grep -oE "$1" | head -n 1 || true)
            if [ -n "$found" ] && [ "$found" != "${last:-}" ]; then
                printf '%s' "$found"
                return
            fi
            break
        done
        sleep 0.1
    done
    echo "no mail with $1 for $address in $mails" >&2
    exit 1
}

say 'register, ask for the code again, verify'
json 202 /users "{\"email\":\"$address\",\"password\":\"$password\"}" >/dev/null
last=$(newest '^[0-9]{6}$')
json 202 /users/resend-code "{\"email\":\"$address\"}" >/dev/null
code=$(newest '^[0-9]{6}$')
json 400 /users/verify "{\"email\":\"$address\",\"code\":\"$last\"}" >/dev/null
json 200 /users/verify "{\"email\":\"$address\",\"code\":\"$code\"}" >/dev/null

say 'sign in with JSON and with Basic, see oneself, sign out'
token=$(json 200 /users/login "{\"email\":\"$address\",\"password\":\"$password\"}" | field access_token)
call 200 GET /users/me -H "authorization: Bearer $token" >/dev/null
call 204 POST /sessions/logout -H "authorization: Bearer $token" >/dev/null
call 401 GET /users/me -H "authorization: Bearer $token" >/dev/null
token=$(call 200 POST /sessions -u "$address:$password" | field access_token)

say 'change the password'
json 204 /passwords/change \
    "{\"current_password\":\"$password\",\"new_password\":\"a second password\",\"confirmation_password\":\"a second password\"}" \
    -H "authorization: Bearer $token" >/dev/null

say 'forget it, and reset it by the link'
json 202 /passwords/forgot "{\"email\":\"$address\"}" >/dev/null
link=$(newest '#token=[A-Za-z0-9_-]+')
reset="{\"token\":\"${link#\#token=}\",\"new_password\":\"a third password\",\"confirmation_password\":\"a third password\"}"
json 204 /passwords/reset "$reset" >/dev/null
json 400 /passwords/reset "$reset" >/dev/null

say 'forget it again, and set it by a code, which signs in'
last=$code
json 202 /passwords/request-code "{\"email\":\"$address\",\"purpose\":\"reset_password\"}" >/dev/null
code=$(newest '^[0-9]{6}$')
json 200 /passwords/set-with-code \
    "{\"email\":\"$address\",\"verification_code\":\"$code\",\"new_password\":\"a fourth password\",\"confirmation_password\":\"a fourth password\"}" >/dev/null

say 'renew the session, see the devices, end the others'
session=$(json 200 /sessions "{\"email\":\"$address\",\"password\":\"a fourth password\"}")
token=$(field access_token <<<"$session")
bearer="authorization: Bearer $token"
renewed=$(json 200 /sessions/refresh "{\"refresh_token\":\"$(field refresh_token <<<"$session")\"}")
newer=$(json 200 /sessions/refresh "{\"refresh_token\":\"$(field refresh_token <<<"$renewed")\"}")
call 200 GET /sessions -H "$bearer" >/dev/null
call 204 DELETE /sessions -H "$bearer" >/dev/null

say 'a name, another address, and the change undone from the old one'
call 200 PATCH /users/me -H "$bearer" -H 'content-type: application/json' -d '{"username":"Walker","locale":"es"}' >/dev/null
old=$address
address=new.$old
last=$code
json 202 /users/me/email "{\"new_email\":\"$address\",\"password\":\"a fourth password\"}" -H "$bearer" >/dev/null
code=$(newest '^[0-9]{6}$')
json 200 /users/me/email/confirm "{\"code\":\"$code\"}" -H "$bearer" >/dev/null
address=$old
last=$link
link=$(newest 'undo-email-change#token=[A-Za-z0-9_-]+')
json 204 /users/undo-email-change "{\"token\":\"${link#*token=}\"}" >/dev/null
call 401 GET /users/me -H "$bearer" >/dev/null
last=$link
link=$(newest 'reset-password#token=[A-Za-z0-9_-]+')
json 204 /passwords/reset \
    "{\"token\":\"${link#*token=}\",\"new_password\":\"a fifth password\",\"confirmation_password\":\"a fifth password\"}" >/dev/null

say 'take everything along, delete the account, and come back'
token=$(call 200 POST /sessions -u "$address:a fifth password" | field access_token)
call 200 GET /users/me/export -H "authorization: Bearer $token" >/dev/null
call 204 DELETE /users/me -H "authorization: Bearer $token" -H 'content-type: application/json' \
    -d '{"password":"a fifth password"}' >/dev/null
token=$(call 200 POST /sessions -u "$address:a fifth password" | field access_token)

say 'a token that was used up ends its session, and users are not administrators'
session=$(json 200 /sessions "{\"email\":\"$address\",\"password\":\"a fifth password\"}")
first=$(field refresh_token <<<"$session")
renewed=$(json 200 /sessions/refresh "{\"refresh_token\":\"$first\"}")
newer=$(json 200 /sessions/refresh "{\"refresh_token\":\"$(field refresh_token <<<"$renewed")\"}")
json 401 /sessions/refresh "{\"refresh_token\":\"$first\"}" >/dev/null
json 401 /sessions/refresh "{\"refresh_token\":\"$(field refresh_token <<<"$newer")\"}" >/dev/null
call 403 GET /users -H "authorization: Bearer $token" >/dev/null
call 403 GET /audit -H "authorization: Bearer $token" >/dev/null

say 'what is wrong is refused'
json 401 /users/login "{\"email\":\"$address\",\"password\":\"$password\"}" >/dev/null
json 422 /users "{\"email\":\"$address\",\"password\":\"password\"}" >/dev/null
json 400 /users '{' >/dev/null
say 'done'
