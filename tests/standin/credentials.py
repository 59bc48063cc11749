"""How each upstream reads the key.

Each function takes the headers of a query (names in lower case) and the keys that the stand-in knows, and returns the
key of the query: a known one, any other text, or None.
"""

import base64
import hashlib
import hmac
import json
import time


def scheme(name: str):
    """`Authorization: NAME KEY`"""

    def read(headers: dict, keys: set) -> str | None:
        found, _, key = headers.get("authorization", "").partition(" ")
        return key if found == name else None

    return read


def header(name: str):
    """`NAME: KEY`"""
    return lambda headers, keys: headers.get(name)


def kling_token(headers: dict, keys: set) -> str | None:
    """`Authorization: Bearer JWT`: the ACCESS:SECRET whose secret signed it, if it is currently valid."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    try:
        signed, _, signature = token.rpartition(".")
        head, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        signature = _decoded(signature)
    except ValueError:
        return None
    if kind != "Bearer" or head != {"alg": "HS256", "typ": "JWT"} or claims.keys() != {"iss", "exp", "nbf"}:
        return None
    if not claims["nbf"] <= time.time() < claims["exp"] <= time.time() + 1801:
        return None
    for key in keys:
        access, _, secret = key.partition(":")
        if access == claims["iss"] and hmac.digest(secret.encode(), signed.encode(), hashlib.sha256) == signature:
            return key
    return None


def kling_key(headers: dict, keys: set) -> str | None:
    """`Authorization: Bearer KEY`, or a token as above."""
    return kling_token(headers, keys) or scheme("Bearer")(headers, keys)


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
