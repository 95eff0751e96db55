export { createLogger, renderText, setLevel, silentLogger } from './logger.js';
export type { LogFormat, LogLevel, Logger, LoggerOptions } from './logger.js';
