// Access tokens as the server's operator would mint them: HS256 JWT with a video grant.

import { createHmac } from "node:crypto";

const encode = (value) => Buffer.from(value).toString("base64url");

/** A token for `identity` in `room`; `grants` adds to or overrides the video grant. */
export function token(room, identity, grants = {}) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: process.env.TEST_KEY ?? "devkey",
    sub: identity,
    name: identity,
    nbf: now - 5,
    exp: now + 3600,
    video: { room, roomJoin: true, ...grants },
  };
  const secret = process.env.TEST_SECRET ?? "stellwerk-dev-secret-0123456789abcdef";
  const body = `${encode('{"alg":"HS256","typ":"JWT"}')}.${encode(JSON.stringify(claims))}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
}
