export { startNats } from './nats.js';
export type { TestNats } from './nats.js';
export { makeTempDir } from './temp-dir.js';
export type { TempDir } from './temp-dir.js';
export { waitFor } from './wait-for.js';
export type { WaitOptions } from './wait-for.js';
