export { examineMachine } from './doctor.js';
export type { Finding } from './doctor.js';
export { startEngine } from './launcher.js';
export type { LauncherOptions, RunningEngine } from './launcher.js';
export { engineStatus } from './status.js';
export type { ServiceStatus } from './status.js';
