export { EventReader } from './event-reader.js';
export type { EventReaderOptions, ReadEventsOptions } from './event-reader.js';
export { ensureStream } from './event-stream.js';
export type { EventRetention } from './event-stream.js';
export type { NatsAddress } from './nats-link.js';
export { startOutboxPublisher } from './outbox-publisher.js';
export type { OutboxPublisher, OutboxPublisherOptions, PublisherState } from './outbox-publisher.js';
export { eventFilter, eventStream, eventSubject } from './subjects.js';
