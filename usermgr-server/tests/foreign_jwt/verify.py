"""Checks access tokens with PyJWT, as a service written in Python would.

Install:  apt-get install python3-jwt python3-cryptography      (or: pip install 'pyjwt[crypto]')
Use:      verify.py < tokens.json

Reads {"jwks": {...}, "issuer": "...", "audience": "...", "tokens": [{"name", "token", "good"}]} and prints `ok NAME` or
`WRONG NAME: why` for each token. It ends with status 1 if any token is taken that is not good, or refused though it is.
"""

import json
import sys

import jwt

ALGORITHMS = {"EdDSA", "ES256", "RS256"}
HEADER = {"alg", "kid", "typ"}
REQUIRED = ["iss", "sub", "aud", "exp", "nbf", "iat", "sid", "jti"]
LEEWAY = 60


class Refused(Exception):
    """A token that PyJWT alone would let through."""


def key_set(jwks):
    """The keys by their `kid`, each with the one algorithm that it is for."""
    keys = {}
    for entry in jwks["keys"]:
        if entry["alg"] in ALGORITHMS and entry["use"] == "sig":
            keys[entry["kid"]] = (entry["alg"], jwt.PyJWK(entry, entry["alg"]).key)
    return keys


def verify(token, keys, issuer, audience):
    """The claims of a good token; raises for any other."""
    header = jwt.get_unverified_header(token)
    if set(header) != HEADER or header["typ"] != "at+jwt":
        raise Refused(f"the header is {header}")
    if header["kid"] not in keys:
        raise Refused(f"the key {header['kid']} is not in the set")
    algorithm, key = keys[header["kid"]]
    claims = jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        issuer=issuer,
        audience=audience,
        leeway=LEEWAY,
        options={"require": REQUIRED},
    )
    for name in ("iss", "sub", "aud", "sid", "jti"):
        if not isinstance(claims[name], str) or not claims[name]:
            raise Refused(f"{name} is no text")
    for name in ("exp", "nbf", "iat"):
        if type(claims[name]) is not int:
            raise Refused(f"{name} is no whole number")
    return claims


def main():
    work = json.load(sys.stdin)
    keys = key_set(work["jwks"])
    wrong = False
    for case in work["tokens"]:
        try:
            verify(case["token"], keys, work["issuer"], work["audience"])
            why = None if case["good"] else "it was taken"
        # Whatever PyJWT raises, it is a refusal: of a token, not of the key set, which was read above.
        except Exception as error:  # noqa: BLE001
            why = f"{type(error).__name__}: {error}" if case["good"] else None
        print(f"WRONG {case['name']}: {why}" if why else f"ok {case['name']}")
        wrong = wrong or why is not None
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
