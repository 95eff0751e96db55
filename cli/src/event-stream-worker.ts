import { workerData } from 'node:worker_threads';
import { ensureStream } from '@flotilla/events';

// A thread of its own, for a moment: the NATS client would stay in the launcher's memory for good.
void ensureStream(workerData as Parameters<typeof ensureStream>[0]);
