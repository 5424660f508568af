// A town that has its own Synapse and its own Stellwerk beside it.

import { join } from "node:path";
import { freeTcp, freeUdp } from "../lib/daemon.mjs";
import { Stellwerk } from "./stellwerk.mjs";
import { Synapse } from "./synapse.mjs";

export class Town {
  /** Starts both, with their files in `folder`. `server` is the name in user and room ids; `net`
   * tells where they are on a network, if not on loopback only; `told` is whether Synapse tells
   * the daemon of events. */
  static async open({ folder, server, net, told }) {
    const town = Object.assign(new Town(), { server });
    const [http, metrics, media] = [await freeTcp(), await freeTcp(), await freeUdp()];
    const port = await freeTcp();
    town.stellwerk = await Stellwerk.make({ folder: join(folder, "stellwerk"), server, net,
      ports: { http, metrics, media }, synapse: port });
    const texts = await town.stellwerk.register({ told });
    town.tokens = [...texts.registration.matchAll(/^\w\w_token: "?([^"\n]+)/gm)]
      .map(([, token]) => token);
    [town.synapse] = await Promise.all([
      Synapse.start({ folder: join(folder, "synapse"), server, net, port, ...texts }),
      town.stellwerk.start()]);
    return town;
  }

  close() {
    return Promise.all([this.synapse.stop(), this.stellwerk.stop()]);
  }
}
