// What the laboratory's figures (src/lab/figures.rs) are, from what browsers count.

/** Bytes of a packet on the wire beside its payload. Of padding no more than that is counted. */
const OVERHEAD = 64;
/** Seconds between two looks, and how many of them a recovery is a mean of. */
const SLOT = 0.1;
const MEAN = 10;
const RECOVERED = 0.9;

const wireBytes = ({ bytes, packets }) => bytes + OVERHEAD * packets;
const sum = (values) => values.reduce((all, value) => all + value, 0);

/**
 * What somebody sent between two looks at the counters: kbit/s on the wire of the layers, smallest
 * first, and of the sound, and the best layer's frames in a second.
 */
export function sent(before, after) {
  const grown = (stream, amount) => {
    const first = before.find(({ kind, rid }) => kind === stream.kind && rid === stream.rid);
    return (amount(stream) - amount(first)) / (stream.at - first.at);
  };
  const rate = (stream) => grown(stream, wireBytes) * 8;
  const layers = after.filter(({ kind }) => kind === "video").sort((a, b) => a.width - b.width);
  const sound = after.find(({ kind }) => kind === "audio");
  const fps = layers.length && grown(layers.at(-1), ({ frames }) => frames) * 1000;
  return { layers: layers.map(rate), sound: rate(sound), fps };
}

/** A counter that is known at some moments, in seconds since the first. */
class Counter {
  constructor(points) {
    this.points = points;
  }

  at(time) {
    const next = this.points.findIndex(([at]) => at >= time);
    if (next <= 0) return this.points.at(next)[1];
    const [[from, before], [to, after]] = this.points.slice(next - 1, next + 1);
    return before + (after - before) * (time - from) / (to - from);
  }

  /** Its growth in kbit/s where it counts bytes. */
  rate(from, to) {
    return (this.at(to) - this.at(from)) * 8 / 1000 / (to - from);
  }
}

/** A counter of all streams of a diary which `begin`s at a moment. */
function counter(looks, begin, amount) {
  const points = looks.filter((look) => look.length).map((look) =>
    [(look[0].at - begin) / 1000, sum(look.map(amount))]);
  return new Counter([[0, 0], ...points.filter(([at]) => at > 0)]);
}

/** What came of a `network` from `begin` on, as a diary tells, of what was `sent` meanwhile. */
export function figures({ seconds, steps, trouble }, begin, looks, { layers, sound }) {
  const wire = counter(looks, begin, wireBytes);
  const videos = looks.map((look) => look.filter(({ kind }) => kind === "video"));
  const video = counter(videos, begin, wireBytes);
  const slots = Array.from({ length: seconds / SLOT }, (_, i) => i * SLOT);
  const capacity = (time) => steps.findLast(([second]) => second <= time + SLOT / 2)[1];
  const could = (rate) => sum(slots.map((time) => rate(capacity(time)))) / slots.length;
  const best = layers.at(-1) + sound;
  const frozen = counter(videos, begin, (stream) => stream.frozen);
  const widths = videos.flat().filter(({ width, at }) => width && at < begin + seconds * 1000);
  return {
    use: wire.rate(0, seconds) / could((kbps) => Math.min(kbps, best)),
    ladder: video.rate(0, seconds) / could((kbps) => step(layers, 0.9 * kbps - sound)),
    recovery: trouble && recovery(wire, trouble, seconds),
    frozen: frozen.at(seconds) / seconds * 100,
    longest: longest(videos.flat()),
    switches: widths.filter(({ width }, i) => i && width !== widths[i - 1].width).length * 60 /
      seconds,
  };
}

/** The best step of the ladder that fits: layers at full and at half frame rate. */
function step([low, middle, high], room) {
  // libwebrtc gives the first two of three temporal layers 40 and 20 % of the bits.
  const steps = [high, 0.6 * high, middle, 0.6 * middle, low, 0.6 * low, 0.4 * low];
  return steps.find((rate) => rate <= room) ?? steps.at(-1);
}

/** A rate that never came back counts as the time that was left. */
function recovery(wire, [from, to], seconds) {
  const wanted = RECOVERED * wire.rate(from - 10, from);
  for (let slot = MEAN; to + slot * SLOT <= seconds; slot += 1) {
    const end = to + slot * SLOT;
    if (wire.rate(end - MEAN * SLOT, end) >= wanted) return end - to;
  }
  return seconds - to;
}

/** The longest freeze, by how the sum of all grew. */
function longest(looks) {
  const grown = looks.map(({ frozen, freezes }, i) => i && freezes > looks[i - 1].freezes ?
    (frozen - looks[i - 1].frozen) / (freezes - looks[i - 1].freezes) : 0);
  return Math.max(0, ...grown);
}
