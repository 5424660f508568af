// What was said in confidence during a run - tokens, names of people and rooms - to look for it
// where it must not be.

/** What Element Call asks of the token service. */
const ASKED = /\/(sfu\/get|get_token|delegate_delayed_leave)$/;
/** Shorter texts would be found anywhere. */
const SHORTEST = 8;

export class Secrets {
  constructor() {
    this.all = new Map();
  }

  add(what, text) {
    if (typeof text === "string" && text.length >= SHORTEST) this.all.set(text, what);
  }

  /** Listens to what a page asks of the token service, and what it is told. */
  watch(page) {
    page.on("request", (request) => {
      if (!ASKED.test(request.url()) || request.method() !== "POST") return;
      const body = JSON.parse(request.postData() || "{}");
      this.add("an OpenID token", body.openid_token?.access_token);
      this.add("a member id", body.member?.id);
      this.add("a delayed event", body.delay_id);
    });
    page.on("response", async (response) => {
      if (!ASKED.test(response.url()) || response.request().method() !== "POST") return;
      this.token((await response.json().catch(() => null))?.jwt);
    });
  }

  /** A token to join with, and whom and what it names. */
  token(jwt) {
    if (!jwt) return;
    this.add("a token", jwt);
    const claims = JSON.parse(Buffer.from(jwt.split(".")[1], "base64").toString());
    this.add("a participant's identity", claims.sub);
    this.add("the name of a call", claims.video.room);
  }

  /** The kinds of secrets in a text. */
  in(text) {
    return [...this.all].filter(([secret]) => text.includes(secret)).map(([, what]) => what);
  }
}
