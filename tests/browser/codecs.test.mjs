// Codecs beside VP8, from a real encoder to a real decoder: the picture comes, its size follows the
// wish, and the decoder never stumbles.

import { test, expect, until } from "../lib/harness.mjs";
import { RED, css } from "./call.test.mjs";

const WHICH = { name: "picture" };
const LOW = 0;
const HIGH = 2;
// Chromium makes two sizes of a picture of 640x360, whatever the codec.
const [SMALL, LARGE] = [320, 640];
const FPS = 10;

/** The codec that ben decodes, as in its statistics. */
export function decoded(ben) {
  return ben.page.evaluate(async (which) => {
    const report = await window.me.tile(which).track.receiver.getStats();
    const entries = [...report.values()];
    const stream = entries.find((entry) => entry.type === "inbound-rtp");
    return entries.find((entry) => entry.id === stream.codecId)?.mimeType;
  }, WHICH);
}

export async function wide(ben, pixels, seconds) {
  let last;
  await until(async () => {
    last = (await ben.call("list")).find((tile) => tile.name === "picture")?.size;
    return last?.[0] === pixels;
  }, `a picture ${pixels} wide`, { seconds })
    .catch((error) => { throw new error.constructor(`${error.message}, it is ${last}`); });
}

for (const [codec, mime] of [["h264", "video/H264"], ["vp9", "video/VP9"], ["av1", "video/AV1"]]) {
  test("", `${codec}: a picture at 10 frames a second or more, small and large`,
    async ({ world, room }) => {
      const [anna, ben] = [await world.person("anna"), await world.person("ben")];
      await Promise.all([anna.join(room), ben.join(room)]);
      const can = await anna.page.evaluate((wanted) =>
        RTCRtpSender.getCapabilities("video").codecs.some((one) => one.mimeType === wanted), mime);
      expect(can, `this Chromium can't encode ${codec}`);
      await anna.call("publishPicture", "picture", css(RED), 640, 360,
        { publish: { videoCodec: codec, backupCodec: false } });
      await ben.sees({ ...WHICH, kind: "video" }, { seconds: 20 });
      expect(await decoded(ben) === mime, `ben decodes ${await decoded(ben)}`);
      await wide(ben, LARGE, 45);
      await ben.showsColour(WHICH, RED);
      const rates = [];
      for (const [quality, pixels] of [[LOW, SMALL], [HIGH, LARGE], [LOW, SMALL]]) {
        await ben.call("setQuality", WHICH, quality);
        await wide(ben, pixels, 20);
        rates.push((await ben.watch(WHICH, 3000)).fps);
      }
      expect(Math.min(...rates) >= FPS, `${rates} frames per second`);
      const stats = await ben.call("stats", WHICH);
      expect(stats.packetsLost === 0, `${stats.packetsLost} packets are missed`);
      await ben.undisturbed();
      return `${rates.map((rate) => rate.toFixed(1))} frames per second, ` +
        `${stats.keyFramesDecoded} key frames, ${stats.freezeCount} freezes`;
    }, { seconds: 150 });
}

for (const [codec, mime] of [["vp9", "video/VP9"], ["av1", "video/AV1"]]) {
  test("", `${codec} with simulcast: each size has its own stream, and viewers change between them`,
    async ({ world, room }) => {
      const [anna, ben] = [await world.person("anna"), await world.person("ben")];
      await Promise.all([anna.join(room), ben.join(room)]);
      await anna.call("publishPicture", "picture", css(RED), 640, 360,
        { publish: { videoCodec: codec, backupCodec: false, scalabilityMode: "L1T3" } });
      await ben.sees({ ...WHICH, kind: "video" }, { seconds: 20 });
      expect(await decoded(ben) === mime, `ben decodes ${await decoded(ben)}`);
      const rids = (await anna.call("sending")).map((layer) => layer.rid).sort().join();
      expect(rids === "h,q", `anna sends ${rids}`);
      const rates = [];
      for (const [quality, pixels] of [[HIGH, LARGE], [LOW, SMALL], [HIGH, LARGE], [LOW, SMALL]]) {
        await ben.call("setQuality", WHICH, quality);
        await wide(ben, pixels, 45);
        await ben.showsColour(WHICH, RED);
        rates.push((await ben.watch(WHICH, 3000)).fps);
      }
      expect(Math.min(...rates) >= FPS, `${rates} frames per second`);
      const stats = await ben.call("stats", WHICH);
      expect(stats.packetsLost === 0, `${stats.packetsLost} packets are missed`);
      await ben.undisturbed();
      return `${rates.map((rate) => rate.toFixed(1))} frames per second, ` +
        `${stats.keyFramesDecoded} key frames, ${stats.freezeCount} freezes`;
    }, { seconds: 150 });
}
