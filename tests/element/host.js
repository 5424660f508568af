// A Matrix client that does nothing but show Element Call in one room, as Element Web does it:
// it has the session and the keys, the widget asks it for whatever it wants of Matrix.

import { createClient, ClientEvent, MatrixEventEvent, RoomStateEvent } from "matrix-js-sdk";
import { ClientWidgetApi, Widget } from "matrix-widget-api";
import { Driver } from "./driver.js";

/** Actions of Element Call that are not for the driver, and want no more than a receipt. */
const RECEIPTS = ["io.element.join", "io.element.device_mute", "im.vector.hangup",
  "set_always_on_screen"];

class Host {
  /** Signs in, and waits until the server knows this device's keys. */
  async open({ url, id, device, token }) {
    this.client = createClient({ baseUrl: url, userId: id, deviceId: device, accessToken: token });
    await this.client.initRustCrypto({ cryptoDatabasePrefix: device });
    const synced = new Promise((done) => {
      this.client.on(ClientEvent.Sync, (state) => state === "SYNCING" && done());
    });
    await this.client.startClient();
    await synced;
    const crypto = this.client.getCrypto();
    for (;;) {
      const known = await crypto.getUserDeviceInfo([id], true);
      if (known.get(id)?.has(device)) return;
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** How many devices with keys this client knows of these users. */
  async knows(users) {
    const known = await this.client.getCrypto().getUserDeviceInfo(users, true);
    return [...known.values()].reduce((sum, devices) => sum + devices.size, 0);
  }

  /** Shows Element Call, which serves from `folder`, in `room`. */
  show(folder, room) {
    const page = new URL(`${folder}/index.html`, location.href);
    const { client } = this;
    const parameters = new URLSearchParams({
      widgetId: "call", parentUrl: location.href, roomId: room, baseUrl: client.baseUrl,
      userId: client.getUserId(), deviceId: client.getDeviceId(), intent: "start_call",
      perParticipantE2EE: "true", header: "none", lang: "en", theme: "dark",
    });
    page.hash = `?${parameters}`;
    const frame = document.createElement("iframe");
    frame.allow = "camera; microphone; display-capture; autoplay";
    document.body.replaceChildren(frame);
    const widget = new Widget({ id: "call", creatorUserId: client.getUserId(), type: "m.custom",
      url: page.href, waitForIframeLoad: false });
    this.api = new ClientWidgetApi(widget, frame, new Driver(client, room));
    this.answer(frame);
    this.feed(room);
    frame.src = page.href;
  }

  answer(frame) {
    const on = (action, then) => this.api.on(`action:${action}`, (event) => {
      event.preventDefault();
      this.api.transport.reply(event.detail, {});
      then();
    });
    for (const action of RECEIPTS) on(action, () => {});
    on("io.element.close", () => frame.remove());
  }

  /** Hands the widget what happens in the room. */
  feed(room) {
    const { api, client } = this;
    const given = new WeakSet();
    const give = (event) => {
      const sealed = event.isEncrypted() &&
        (!event.getClearContent() || event.isDecryptionFailure());
      if (event.getRoomId() !== room || sealed || given.has(event)) return;
      given.add(event);
      api.feedEvent(event.getEffectiveEvent());
    };
    client.on(ClientEvent.Event, give);
    client.on(MatrixEventEvent.Decrypted, give);
    client.on(RoomStateEvent.Events, (event) => api.feedStateUpdate(event.getEffectiveEvent()));
    client.on(ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) =>
      api.feedToDevice(message, Boolean(encryptionInfo)));
  }
}

window.host = new Host();
