import { elapsedMs, type Measurement } from '../measurement.js';

/** How long does a pull take, download, verification and unpacking together? */
export const imageMeasurements: readonly Measurement[] = [
  {
    title: 'pull of the Debian image (3 layers, about 10,000 files) from a loopback registry',
    unit: 'ms',
    rounds: 5,
    aim: { kind: 'at most', ratio: 0.4 },
    measure: (engine) => elapsedMs(() => engine.cli(['pull', '-q', `${engine.registry}/debian:bookworm`])),
    cleanUp: (engine) => engine.cli(['rmi', `${engine.registry}/debian:bookworm`]),
  },
];
