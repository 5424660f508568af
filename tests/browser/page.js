// Runs in the page: one participant, driven by the real livekit-client, and instruments that see
// what a person would notice - frames on the right tile, freezes, colours, tones.

const client = window.LivekitClient;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** A remote track on the screen (or in the speaker), with a diary of what it showed. */
class Tile {
  constructor(track, publication, participant) {
    this.track = track;
    this.identity = participant.identity;
    this.name = publication.trackName;
    this.source = publication.source;
    this.sid = publication.trackSid;
    this.kind = track.kind;
    this.subscribedAt = performance.now();
    this.frames = []; // [time, width, height, presented] of every frame that was shown
    this.element = track.attach();
    if (this.kind === "video") {
      this.resize(window.tileWidth ?? 640, window.tileHeight ?? 360);
      this.watch();
    }
    document.body.append(this.element);
  }

  resize(width, height) {
    Object.assign(this.element.style, { width: `${width}px`, height: `${height}px` });
  }

  watch() {
    this.element.requestVideoFrameCallback((now, frame) => {
      this.frames.push([performance.now(), frame.width, frame.height, frame.presentedFrames]);
      this.watch();
    });
  }

  /** What was seen between two times: frames per second and the longest time without a frame. */
  seen(from, to) {
    const inside = this.frames.filter(([at]) => at >= from && at <= to);
    let gap = 0;
    let last = from;
    for (const [at] of [...inside, [to]]) {
      gap = Math.max(gap, at - last);
      last = at;
    }
    const presented = inside.length ? inside.at(-1)[3] - inside[0][3] + 1 : 0;
    return { fps: presented / ((to - from) / 1000), gap, frames: inside.length };
  }

  /** Average colour of the left upper quarter, where the sender painted its own. */
  colour() {
    if (!this.element.videoWidth) return null;
    const canvas = new OffscreenCanvas(8, 8);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const { videoWidth, videoHeight } = this.element;
    context.drawImage(this.element, 0, 0, videoWidth / 4, videoHeight / 4, 0, 0, 8, 8);
    const { data } = context.getImageData(0, 0, 8, 8);
    const sum = [0, 0, 0];
    for (let i = 0; i < data.length; i += 4) for (const c of [0, 1, 2]) sum[c] += data[i + c];
    return sum.map((value) => Math.round(value / 64));
  }

  /** The receiver's own statistics of this track. */
  async stats() {
    const report = await this.track.receiver.getStats();
    for (const entry of report.values()) if (entry.type === "inbound-rtp") return { ...entry };
    return null;
  }

  /** Loudest frequency in hertz over a short while, and its level in dB. */
  async tone() {
    const audio = new AudioContext();
    await audio.resume();
    const analyser = new AnalyserNode(audio, { fftSize: 4096, smoothingTimeConstant: 0 });
    new MediaStreamAudioSourceNode(audio, {
      mediaStream: new MediaStream([this.track.mediaStreamTrack]),
    }).connect(analyser);
    const bins = new Float32Array(analyser.frequencyBinCount);
    let best = { hertz: 0, level: -Infinity };
    for (let round = 0; round < 20 && best.level < -50; round += 1) {
      await sleep(100);
      analyser.getFloatFrequencyData(bins);
      const top = bins.reduce((winner, value, bin) => (value > bins[winner] ? bin : winner), 4);
      best = { hertz: (top * audio.sampleRate) / analyser.fftSize, level: bins[top] };
    }
    await audio.close();
    return best;
  }
}

/** What a room needs to encrypt from end to end by a key that everybody has. */
async function encryption(key) {
  const keyProvider = new client.ExternalE2EEKeyProvider();
  await keyProvider.setKey(key);
  return { keyProvider, worker: new Worker("livekit-client.e2ee.worker.js") };
}

/** Everything tests call. Values in and out are plain JSON. */
window.me = {
  tiles: [],
  events: [],
  made: new Map(),
  room: null,

  async join(url, token, { key, ...options } = {}, connect = {}) {
    const { RoomEvent } = client;
    if (key) options.encryption = await encryption(key);
    const room = new client.Room(options);
    if (key) await room.setE2EEEnabled(true);
    this.room = room;
    this.tiles = [];
    this.events = [];
    this.firstFrame = null;
    const note = (what) => (...args) => {
      const text = args.map((a) => a?.trackSid ?? a?.identity ?? (typeof a === "object" ? "" : a));
      this.events.push({ at: performance.now(), what, with: text.join(" ") });
    };
    for (const what of ["Reconnecting", "SignalReconnecting", "Reconnected", "Disconnected",
      "ParticipantConnected", "ParticipantDisconnected", "TrackSubscriptionFailed", "TrackMuted",
      "TrackUnmuted", "TrackPublished", "TrackUnpublished", "TrackStreamStateChanged"]) {
      room.on(RoomEvent[what], note(what));
    }
    room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
      note("TrackSubscribed")(publication, participant);
      this.tiles.push(new Tile(track, publication, participant));
    });
    room.on(RoomEvent.TrackUnsubscribed, (track, publication, participant) => {
      note("TrackUnsubscribed")(publication, participant);
      for (const element of track.detach()) element.remove();
      this.tiles = this.tiles.filter((tile) => tile.track !== track);
    });
    const started = performance.now();
    await room.connect(url, token, { autoSubscribe: true, ...connect });
    this.startedAt = started;
    return { connected: performance.now() - started, sid: room.localParticipant.sid };
  },

  /** Joins and gives the milliseconds from connect() to the first remote frame on the screen. */
  async timeToFirstFrame(url, token, options) {
    const started = performance.now();
    await this.join(url, token, options);
    while (performance.now() < started + 10000) {
      const shown = this.tiles.filter((tile) => tile.frames.length);
      if (shown.length) return Math.min(...shown.map((tile) => tile.frames[0][0])) - started;
      await sleep(5);
    }
    return Infinity;
  },

  async leave() {
    await this.room?.disconnect();
    for (const { stop } of this.made.values()) stop();
    this.made.clear();
    document.body.replaceChildren();
    window.peers.length = 0;
  },

  /** Camera and microphone as an app switches them on; the devices are the browser's fake ones. */
  async publishDevices(width = 640, height = 360) {
    const video = { resolution: { width, height, frameRate: 30 } };
    await Promise.all([
      // Left to itself livekit-client sends 640x360 at 20 frames per second.
      this.room.localParticipant.setCameraEnabled(true, video, {
        videoEncoding: { maxBitrate: 800_000, maxFramerate: 30 },
      }),
      this.room.localParticipant.setMicrophoneEnabled(true),
    ]);
  },

  /** A picture that tells who sends it: `colour` everywhere, a white bar that moves each frame. */
  picture(colour, width, height, fps = 30) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { alpha: false });
    let turn = 0;
    const paint = () => {
      turn += 1;
      context.fillStyle = colour;
      context.fillRect(0, 0, width, height);
      context.fillStyle = "#fff";
      context.fillRect((turn * 7) % width, height * 0.6, width / 12, height * 0.3);
    };
    return this.film(canvas, paint, fps);
  },

  /** What `paint` makes of a canvas, for each frame anew. */
  film(canvas, paint, fps) {
    paint();
    const timer = setInterval(paint, 1000 / fps);
    const track = canvas.captureStream(fps).getVideoTracks()[0];
    return { track, stop: () => { clearInterval(timer); track.stop(); } };
  },

  /**
   * A picture that an encoder doesn't come to an end with: coarse noise that a camera pans over,
   * beneath fine noise that is another in each frame.
   */
  noise(width, height, fps = 30) {
    const speckled = (step, contrast) => {
      const [w, h] = [width * 1.5 / step, height * 1.5 / step];
      const dots = new ImageData(w, h);
      for (let i = 0; i < dots.data.length; i += 4) {
        const grey = 128 + contrast * (Math.random() - 0.5);
        dots.data.set([grey, grey, grey, 255], i);
      }
      const canvas = new OffscreenCanvas(w, h);
      canvas.getContext("2d").putImageData(dots, 0, 0);
      return canvas;
    };
    const [coarse, fine] = [speckled(16, 200), speckled(2, 255)];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { alpha: false });
    let turn = 0;
    const paint = () => {
      turn += 1;
      const pan = (rate) => (1 + Math.sin(turn * rate)) / 4;
      context.globalAlpha = 1;
      context.drawImage(coarse, -pan(0.02) * width, -pan(0.03) * height, width * 1.5, height * 1.5);
      context.globalAlpha = 0.15;
      context.drawImage(fine, -Math.random() * width / 2, -Math.random() * height / 2, width * 1.5,
        height * 1.5);
    };
    return this.film(canvas, paint, fps);
  },

  /** A sine of `hertz`, which tells at the other end who speaks. */
  sine(hertz) {
    const audio = new AudioContext();
    const out = new MediaStreamAudioDestinationNode(audio);
    const gain = new GainNode(audio, { gain: 0.4 });
    const oscillator = new OscillatorNode(audio, { frequency: hertz });
    oscillator.connect(gain).connect(out);
    oscillator.start();
    const track = out.stream.getAudioTracks()[0];
    return { track, stop: () => { track.stop(); audio.close(); } };
  },

  async publishPicture(name, colour, width, height, options = {}) {
    const made = this.picture(colour, width, height, options.fps ?? 30);
    this.made.set(name, made);
    const publication = await this.room.localParticipant.publishTrack(made.track, {
      name, source: "camera", videoCodec: "vp8", simulcast: true, ...options.publish,
    });
    return publication.trackSid;
  },

  /** Noise in three layers of these bitrates. */
  async publishNoise(name, width, height, bitrates) {
    const made = this.noise(width, height);
    this.made.set(name, made);
    const [low, middle, high] = bitrates;
    const layer = (part, rate) => new client.VideoPreset(width / part, height / part, rate, 30);
    await this.room.localParticipant.publishTrack(made.track, {
      name, source: "camera", videoCodec: "vp8", simulcast: true,
      videoEncoding: { maxBitrate: high, maxFramerate: 30 },
      videoSimulcastLayers: [layer(4, low), layer(2, middle)],
    });
  },

  async publishSine(name, hertz, options = {}) {
    const made = this.sine(hertz);
    this.made.set(name, made);
    const publication = await this.room.localParticipant.publishTrack(made.track, {
      name, source: "microphone", dtx: false, ...options,
    });
    return publication.trackSid;
  },

  async unpublish(name) {
    const made = this.made.get(name);
    await this.room.localParticipant.unpublishTrack(made.track, true);
    made.stop();
    this.made.delete(name);
  },

  /** Mutes a track that was published by that name, or ends that. */
  async mute(name, muted) {
    const { trackPublications } = this.room.localParticipant;
    const publication = [...trackPublications.values()].find((one) => one.trackName === name);
    await (muted ? publication.mute() : publication.unmute());
  },

  /**
   * Whether the client is connected and done with that, and how much came on each tile so far. It
   * says that it is back 2 s before it is done (`minReconnectWait`), and a cut between the two
   * makes it join anew.
   */
  async pulse() {
    const came = await Promise.all(this.tiles.map(async (tile) => {
      const stats = await tile.stats();
      return [tile.name, stats?.framesDecoded ?? stats?.packetsReceived ?? 0];
    }));
    const settled = this.room.state === "connected" && !this.room.engine.attemptingReconnect;
    return { settled, came: Object.fromEntries(came) };
  },

  tile({ identity, name, source, kind }) {
    return this.tiles.find((tile) => (!identity || tile.identity === identity) &&
      (!name || tile.name === name) && (!source || tile.source === source) &&
      (!kind || tile.kind === kind));
  },

  now: () => performance.now(),

  list() {
    return this.tiles.map((tile) => ({
      identity: tile.identity, name: tile.name, source: tile.source, kind: tile.kind, sid: tile.sid,
      frames: tile.frames.length, size: tile.frames.at(-1)?.slice(1, 3) ?? null,
      firstFrame: tile.frames[0]?.[0] ?? null, subscribedAt: tile.subscribedAt,
    }));
  },

  seen(which, from, to) {
    return this.tile(which)?.seen(from, to) ?? null;
  },

  colour(which) {
    return this.tile(which)?.colour() ?? null;
  },

  async stats(which) {
    return (await this.tile(which)?.stats()) ?? null;
  },

  async tone(which) {
    return (await this.tile(which)?.tone()) ?? null;
  },

  /** Sender side: one entry per layer of the video that was published last. */
  async sending() {
    const layers = [];
    for (const peer of window.peers) {
      for (const entry of (await peer.getStats()).values()) {
        if (entry.type === "outbound-rtp" && entry.kind === "video") layers.push({ ...entry });
      }
    }
    const last = Math.max(...layers.map((layer) => Number(layer.mid)));
    return layers.filter((layer) => Number(layer.mid) === last);
  },

  /** The counters of all streams in that direction ("inbound-rtp" or "outbound-rtp"). */
  async counters(direction) {
    const reports = await Promise.all(window.peers.map((peer) => peer.getStats()));
    const entries = reports.flatMap((report) => [...report.values()]);
    return entries.filter(({ type }) => type === direction).map((entry) => ({
      at: entry.timestamp, kind: entry.kind, rid: entry.rid, width: entry.frameWidth,
      bytes: entry.bytesReceived ?? entry.bytesSent,
      packets: entry.packetsReceived ?? entry.packetsSent,
      frames: entry.framesDecoded ?? entry.framesEncoded,
      freezes: entry.freezeCount ?? 0, frozen: entry.totalFreezesDuration ?? 0,
    }));
  },

  /** Takes down what is received, ten times a second from now on; gives the diary so far. */
  diary() {
    if (!this.looks) {
      this.looks = [];
      setInterval(async () => this.looks.push(await this.counters("inbound-rtp")), 100);
    }
    return this.looks;
  },

  remote(identity) {
    const participant = this.room.remoteParticipants.get(identity);
    if (!participant) return null;
    return [...participant.trackPublications.values()].map((publication) => ({
      sid: publication.trackSid, name: publication.trackName, source: publication.source,
      muted: publication.isMuted, subscribed: publication.isSubscribed,
    }));
  },

  setEnabled(which, enabled) {
    for (const participant of this.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        if (publication.trackName === which.name) publication.setEnabled(enabled);
      }
    }
    return performance.now();
  },

  setQuality(which, quality) {
    for (const participant of this.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        if (publication.trackName === which.name) publication.setVideoQuality(quality);
      }
    }
  },

  /** When packets of a track came: polls the counter every 20 ms for `ms`. */
  async arrivals(which, ms) {
    const tile = this.tile(which);
    const out = [];
    const until = performance.now() + ms;
    while (performance.now() < until) {
      const stats = await tile.stats();
      out.push([performance.now(), stats?.packetsReceived ?? 0, stats?.keyFramesDecoded ?? 0]);
      await sleep(20);
    }
    return out;
  },

  /** Sections of the local description by direction, and how many offers were made so far. */
  sections() {
    const sdp = window.peers.at(-1)?.localDescription?.sdp ?? "";
    return sdp.split(/\r\nm=/).slice(1).map((section) => ({
      kind: section.split(" ")[0],
      direction: (section.match(/a=(sendrecv|sendonly|recvonly|inactive)/) ?? [])[1],
      mid: (section.match(/a=mid:(\S+)/) ?? [])[1],
    }));
  },
};
