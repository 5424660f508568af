"""Access tokens as the server's operator would mint them, and deliberately bad ones."""

import base64
import hashlib
import hmac
import json
import os
import time


def _encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(room, identity, grants=None, claims=None, secret=None, header=None, without=()):
    """A JWT for `identity` in `room`. `grants` changes the video grant, `claims` the claims."""
    now = int(time.time())
    body = {
        "iss": os.environ.get("TEST_KEY", "devkey"),
        "sub": identity,
        "name": identity,
        "nbf": now - 5,
        "exp": now + 3600,
        "video": {"room": room, "roomJoin": True, **(grants or {})},
        **(claims or {}),
    }
    for key in without:
        body.pop(key, None)
    secret = secret or os.environ.get("TEST_SECRET", "stellwerk-dev-secret-0123456789abcdef")
    header = header or {"alg": "HS256", "typ": "JWT"}
    text = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(body).encode())}"
    digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(header["alg"], hashlib.sha256)
    mac = hmac.new(secret.encode(), text.encode(), digest).digest()
    return f"{text}.{'' if header['alg'] == 'none' else _encode(mac)}"
