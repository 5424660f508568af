// What Element Call may ask of its host, answered by the host's Matrix client.

import { Direction, MatrixError } from "matrix-js-sdk";
import { OpenIDRequestState, WidgetDriver } from "matrix-widget-api";

export class Driver extends WidgetDriver {
  constructor(client, room) {
    super();
    Object.assign(this, { client, room });
  }

  /** Element Call gets what it wants. */
  async validateCapabilities(wanted) {
    return wanted;
  }

  getKnownRooms() {
    return [this.room];
  }

  async sendEvent(type, content, stateKey = null, room = this.room) {
    const sent = stateKey === null ? await this.client.sendEvent(room, null, type, content)
      : await this.client.sendStateEvent(room, type, content, stateKey);
    return { roomId: room, eventId: sent.event_id };
  }

  async sendStickyEvent(duration, type, content, room = this.room) {
    const sent = await this.client._unstable_sendStickyEvent(room, duration, null, type, content);
    return { roomId: room, eventId: sent.event_id };
  }

  async sendDelayedEvent(delay, type, content, stateKey = null, room = this.room) {
    const sent = stateKey === null
      ? await this.client._unstable_sendDelayedEvent(room, { delay }, null, type, content)
      : await this.client._unstable_sendDelayedStateEvent(room, { delay }, type, content, stateKey);
    return { roomId: room, delayId: sent.delay_id };
  }

  async sendDelayedStickyEvent(delay, duration, type, content, room = this.room) {
    const sent = await this.client._unstable_sendStickyDelayedEvent(
      room, duration, { delay }, null, type, content);
    return { roomId: room, delayId: sent.delay_id };
  }

  async cancelScheduledDelayedEvent(id) {
    await this.client._unstable_cancelScheduledDelayedEvent(id);
  }

  async restartScheduledDelayedEvent(id) {
    await this.client._unstable_restartScheduledDelayedEvent(id);
  }

  async sendScheduledDelayedEvent(id) {
    await this.client._unstable_sendScheduledDelayedEvent(id);
  }

  /** To devices, each message encrypted for the one it goes to. */
  async sendToDevice(type, encrypted, contents) {
    const messages = Object.entries(contents).flatMap(([userId, devices]) =>
      Object.entries(devices).map(([deviceId, payload]) => ({ userId, deviceId, payload })));
    if (!encrypted) {
      await this.client.queueToDevice({ eventType: type, batch: messages });
      return;
    }
    const crypto = this.client.getCrypto();
    await Promise.all(messages.map(async ({ userId, deviceId, payload }) => {
      const batch = await crypto.encryptToDeviceMessages(type, [{ userId, deviceId }], payload);
      await this.client.queueToDevice(batch);
    }));
  }

  /** The newest events of a kind that the client has, newest first. */
  async readRoomTimeline(room, type, msgtype, stateKey, limit) {
    const state = this.client.getRoom(room).getLiveTimeline().getEvents().toReversed();
    const events = state.filter((event) => event.getType() === type &&
      (msgtype === undefined || event.getContent().msgtype === msgtype) &&
      (stateKey === undefined || event.getStateKey() === stateKey));
    return events.slice(0, limit).map((event) => event.getEffectiveEvent());
  }

  async readRoomState(room, type, stateKey) {
    const found = this.client.getRoom(room).currentState.getStateEvents(type, stateKey);
    return [found ?? []].flat().map((event) => event.getEffectiveEvent());
  }

  async readStickyEvents(room) {
    const events = [...this.client.getRoom(room)._unstable_getStickyEvents()];
    await Promise.all(events.map((event) => this.client.decryptEventIfNeeded(event)));
    return events.map((event) => event.getEffectiveEvent());
  }

  async readEventRelations(event, room, relation, type, from, to, limit, direction) {
    const found = await this.client.relations(room, event, relation, type,
      { from, to, limit, dir: direction ?? Direction.Backward });
    return { chunk: found.events.map((each) => each.getEffectiveEvent()),
      nextBatch: found.nextBatch ?? undefined, prevBatch: found.prevBatch ?? undefined };
  }

  askOpenID(observer) {
    this.client.getOpenIdToken().then(
      (token) => observer.update({ state: OpenIDRequestState.Allowed, token }),
      () => observer.update({ state: OpenIDRequestState.Blocked }));
  }

  async getRtcTransports() {
    return { rtc_transports: await this.client._unstable_getRTCTransports() };
  }

  /** The homeserver's own refusals reach the widget as such. */
  processError(error) {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() }
      : undefined;
  }
}
