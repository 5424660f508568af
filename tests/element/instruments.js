// Put into every frame before its own scripts run: sees what Element Call's peer connections do,
// and when a button was pressed. It changes nothing of what they do.

window.peers = [];
window.pressed = {};
window.shown = null;
const remote = new Set();
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...args) {
    super(...args);
    window.peers.push(this);
    this.addEventListener("track", ({ track }) => remote.add(track.id));
  }
};
document.addEventListener("loadeddata", ({ target }) => {
  const [track] = target.srcObject?.getVideoTracks() ?? [];
  if (remote.has(track?.id)) window.shown ??= Date.now();
}, true);
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-testid]");
  if (button) window.pressed[button.dataset.testid] = Date.now();
}, true);

/** What this page receives: a line for each track whose packets come in. */
window.received = async () => {
  const lines = [];
  for (const peer of window.peers) {
    if (peer.connectionState === "closed") continue;
    for (const entry of (await peer.getStats()).values()) {
      if (entry.type === "inbound-rtp") {
        const { kind, trackIdentifier: track, framesDecoded: frames, frameHeight: height } = entry;
        const { totalAudioEnergy: energy, packetsReceived: packets, freezeCount: freezes } = entry;
        lines.push({ kind, track, frames, height, energy, packets, freezes });
      }
    }
  }
  return lines;
};

/** When, in milliseconds of the clock, a probe first holds; null if not within `ms`. It is tried
 * every `pause` ms. */
window.momentOf = async (probe, ms, pause = 20) => {
  const deadline = Date.now() + ms;
  while (Date.now() < deadline) {
    if (await probe()) return Date.now();
    await new Promise((done) => setTimeout(done, pause));
  }
  return null;
};
/** When video first comes in, and when somebody else is first to be seen, which takes a key by way
 * of Matrix. To look at all statistics takes this page a while, so that is done rarely. */
window.firstPicture = async (ms) => {
  const comes = async () =>
    (await window.received()).some((line) => line.kind === "video" && line.packets > 0);
  const arrived = await window.momentOf(comes, ms, 100);
  await window.momentOf(() => window.shown, ms);
  return { arrived, seen: window.shown };
};
window.tiles = () => document.querySelectorAll("[data-testid=videoTile]").length;
window.fewerTiles = (count, ms) => window.momentOf(() => window.tiles() <= count, ms);
