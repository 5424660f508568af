// A proxy between one client and the daemon that reads signalling well enough to cut it at a chosen
// message. That message is lost for certain, or was passed on for certain: no sleep decides it.

import { connect, createServer } from "node:net";

/** Numbers of messages in `SignalRequest`. */
export const REQUEST = { offer: 1, mute: 5, syncState: 12 };

/** Numbers of messages in `SignalResponse`. */
export const RESPONSE = { join: 1, answer: 2, update: 5, trackPublished: 6, reconnect: 19 };

const BINARY = 2;

/** Takes bytes of one direction of a connection apart: the HTTP head, then frames (RFC 6455). */
class Frames {
  constructor() {
    this.rest = Buffer.alloc(0);
    this.size = this.headSize;
  }

  /** The parts that are whole now, each with the number of its message if it begins one. */
  * take(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    for (;;) {
      const size = this.size();
      if (!size || size > this.rest.length) return;
      const part = this.rest.subarray(0, size);
      this.rest = this.rest.subarray(size);
      const isFrame = this.size === this.frameSize;
      if (this.size === this.headSize) {
        // What isn't upgraded is plain HTTP, and passes as it is.
        this.size = /upgrade: *websocket/i.test(part) ? this.frameSize : () => this.rest.length;
      }
      yield { part, number: isFrame ? messageNumber(part) : 0 };
    }
  }

  headSize() {
    const end = this.rest.indexOf("\r\n\r\n");
    return end < 0 ? 0 : end + 4;
  }

  frameSize() {
    const header = headerSize(this.rest);
    if (this.rest.length < header) return 0;
    const short = this.rest[1] & 0x7f;
    const long = { 126: () => this.rest.readUInt16BE(2),
      127: () => Number(this.rest.readBigUInt64BE(2)) }[short];
    return header + (long?.() ?? short);
  }
}

/** Bytes before the payload, as far as the two bytes are there that tell. */
function headerSize(frame) {
  if (frame.length < 2) return 2;
  const length = { 126: 2, 127: 8 }[frame[1] & 0x7f] ?? 0;
  return 2 + length + (frame[1] & 0x80 ? 4 : 0);
}

/** The number of the protobuf field that a message begins with, which is its kind. */
function messageNumber(frame) {
  const begin = headerSize(frame);
  if ((frame[0] & 0xf) !== BINARY || frame.length <= begin) return 0;
  const mask = frame[1] & 0x80 ? frame.subarray(begin - 4, begin) : Buffer.alloc(4);
  const byte = (index) => (frame[begin + index] ?? 0) ^ mask[index];
  // Seven bits a byte, the last three of all say the wire type.
  return byte(0) & 0x80 ? ((byte(0) & 0x7f) | (byte(1) << 7)) >> 3 : byte(0) >> 3;
}

/** Listens for the connections of one client. */
export class Cutter {
  /** `target` is the address of the daemon. */
  static async open(target) {
    const cutter = new Cutter();
    cutter.target = new URL(target);
    cutter.pairs = new Set();
    /** Where to cut next, if anywhere. */
    cutter.plan = null;
    /** Lines cut, messages that were lost by it, joins and resumes that the daemon granted. */
    cutter.counts = { cuts: 0, lost: 0, returns: 0 };
    cutter.server = createServer((client) => cutter.carry(client));
    await new Promise((done) => cutter.server.listen(0, "127.0.0.1", done));
    cutter.url = `ws://127.0.0.1:${cutter.server.address().port}`;
    return cutter;
  }

  carry(client) {
    const daemon = connect(Number(this.target.port), this.target.hostname);
    const pair = { client, daemon };
    this.pairs.add(pair);
    for (const [from, to, plan] of [[client, daemon, "request"], [daemon, client, "response"]]) {
      const frames = new Frames();
      from.on("data", (bytes) => {
        for (const { part, number } of frames.take(bytes)) {
          if (!this.pass(pair, to, { [plan]: number }, part)) return;
        }
      });
      from.on("error", () => {});
      from.on("close", () => {
        to.end();
        this.pairs.delete(pair);
      });
    }
  }

  /** Passes a part on, unless the line is cut here; whether the line still holds. */
  pass(pair, to, { request, response }, part) {
    const { plan } = this;
    const here = plan && ((request && request === plan.request) ||
      (response && response === plan.response));
    if (!here || plan.delivered) to.write(part);
    if (!here) {
      if ([RESPONSE.join, RESPONSE.reconnect].includes(response)) this.counts.returns += 1;
      return true;
    }
    this.plan = null;
    if (!plan.delivered) this.counts.lost += 1;
    this.cut(pair);
    plan.done();
    return false;
  }

  /**
   * Cuts at the next `request` or `response` of a number, which is lost unless it is to be
   * `delivered`. Resolves when that happened.
   */
  cutAt(moment) {
    return new Promise((done) => { this.plan = { ...moment, done }; });
  }

  /** Cuts what is there, now. */
  cutNow() {
    for (const pair of this.pairs) this.cut(pair);
  }

  /** The client's end breaks at once; what was written for the daemon still gets there. */
  cut(pair) {
    this.pairs.delete(pair);
    this.counts.cuts += 1;
    pair.client.resetAndDestroy();
    pair.daemon.end();
    pair.daemon.removeAllListeners("data").resume();
  }

  close() {
    this.plan = null;
    this.cutNow();
    this.server.close();
  }
}
