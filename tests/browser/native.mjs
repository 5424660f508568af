// A participant without a browser: the npm package @livekit/rtc-node, which is the Rust SDK.

import {
  AudioFrame, AudioSource, AudioStream, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent,
  TrackKind, TrackPublishOptions, TrackSource, VideoBufferType, VideoFrame, VideoSource,
  VideoStream,
} from "@livekit/rtc-node";

import { token } from "../lib/token.mjs";
import { sleep, until } from "../lib/harness.mjs";

const RATE = 48000;
/** Samples of 10 ms. */
const STEP = RATE / 100;

export class NativePerson {
  constructor(identity, url) {
    Object.assign(this, { identity, url, disturbed: [], running: true });
    this.frames = new Map(); // "identity source" -> times of all frames
    this.latest = new Map(); // "identity source" -> the last frame
    this.sounds = new Map(); // "identity source" -> the last second, in pieces of 10 ms
    this.room = new Room();
    this.room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
      const key = `${participant.identity} ${publication.source}`;
      const reading = track.kind === TrackKind.KIND_VIDEO
        ? this.watch(track, key) : this.listen(track, key);
      reading.catch((error) => this.disturbed.push(error.message));
    });
    for (const event of [RoomEvent.Reconnecting, RoomEvent.Disconnected]) {
      this.room.on(event, () => this.running && this.disturbed.push(event));
    }
  }

  join(room) {
    return this.room.connect(this.url, token(room, this.identity),
      { autoSubscribe: true, dynacast: false });
  }

  async watch(track, key) {
    const diary = [];
    this.frames.set(key, diary);
    for await (const { frame } of new VideoStream(track)) {
      diary.push(performance.now());
      this.latest.set(key, frame);
    }
  }

  async listen(track, key) {
    const diary = [];
    this.sounds.set(key, diary);
    for await (const frame of new AudioStream(track, RATE, 1)) {
      diary.push(frame.data);
      if (diary.length > 100) diary.shift();
    }
  }

  /** A picture in one colour ([r, g, b]) with a white bar that moves each frame. */
  async publishPicture(colour, width = 640, height = 360, fps = 20) {
    const source = new VideoSource(width, height);
    const track = LocalVideoTrack.createVideoTrack("picture", source);
    const frames = Array.from({ length: fps }, (_, turn) => {
      const data = new Uint8Array(Buffer.alloc(width * height * 4, Buffer.from([...colour, 255])));
      const bar = 4 * width * Math.floor(height * (0.6 + 0.3 * turn / fps));
      data.fill(255, bar, bar + 40 * width);
      return new VideoFrame(data, width, height, VideoBufferType.RGBA);
    });
    const feed = async () => {
      const started = performance.now();
      for (let turn = 0; this.running; turn += 1) {
        source.captureFrame(frames[turn % fps]);
        await sleep(Math.max(0, started + (turn + 1) * 1000 / fps - performance.now()));
      }
    };
    feed().catch((error) => this.disturbed.push(error.message));
    await this.room.localParticipant.publishTrack(track,
      new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA, simulcast: true }));
  }

  async publishSine(hertz) {
    const source = new AudioSource(RATE, 1);
    const track = LocalAudioTrack.createAudioTrack("voice", source);
    const feed = async () => {
      for (let at = 0; this.running; at += STEP) {
        const wave = Int16Array.from({ length: STEP },
          (_, i) => 12000 * Math.sin(2 * Math.PI * hertz * (at + i) / RATE));
        await source.captureFrame(new AudioFrame(wave, RATE, 1, STEP));
      }
    };
    feed().catch((error) => this.disturbed.push(error.message));
    await this.room.localParticipant.publishTrack(track,
      new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE, dtx: false }));
  }

  /** A pixel of the left upper quarter of the camera of `identity`, as far as it was seen. */
  colour(identity) {
    const frame = this.latest.get(`${identity} ${TrackSource.SOURCE_CAMERA}`);
    if (!frame) return null;
    const { data, width, height } = frame.convert(VideoBufferType.RGBA);
    const corner = 4 * (width * Math.floor(height / 8) + Math.floor(width / 8));
    return [...data.subarray(corner, corner + 3)];
  }

  /** Waits until the camera of `identity` shows `colour`. */
  showsColour(identity, colour, { seconds = 10, tolerance = 40 } = {}) {
    return until(() => this.colour(identity)?.every((value, i) =>
      Math.abs(value - colour[i]) <= tolerance), `${this.identity} sees ${identity} in ${colour}`,
    { seconds });
  }

  /** Frames per second of the camera of `identity` in the next `ms`. */
  async fps(identity, ms) {
    const from = performance.now();
    await sleep(ms);
    const diary = this.frames.get(`${identity} ${TrackSource.SOURCE_CAMERA}`) ?? [];
    return diary.filter((at) => at >= from).length * 1000 / (performance.now() - from);
  }

  /** Waits until the microphone of `identity` gives a tone of `hertz`. */
  hears(identity, hertz, { seconds = 10 } = {}) {
    return until(() => {
      const pieces = this.sounds.get(`${identity} ${TrackSource.SOURCE_MICROPHONE}`) ?? [];
      const wave = pieces.flatMap((piece) => [...piece]);
      if (wave.length < RATE / 2 || Math.max(...wave.slice(-STEP * 5)) < 500) return false;
      const rises = wave.filter((value, i) => i && value >= 0 && wave[i - 1] < 0).length;
      return Math.abs(rises * RATE / wave.length - hertz) < 20;
    }, `${this.identity} hears ${hertz} Hz from ${identity}`, { seconds, every: 200 });
  }

  async leave() {
    this.running = false;
    await this.room.disconnect();
  }

  async close() {}
}
