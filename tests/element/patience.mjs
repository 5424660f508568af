// The figures of these tests are those of an idle machine. Here Synapse, browsers and the daemon
// share a few CPUs, with builds beside them at times.

import { cpus, loadavg } from "node:os";

/** How much longer than on an idle machine it may take: twice, or more if many wait for a CPU. */
export const patience = () => Math.max(2, loadavg()[0] / cpus().length);
