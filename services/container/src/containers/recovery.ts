import { readdir, readFile, rm } from 'node:fs/promises';
import { messageOf } from '@flotilla/errors';
import { processStartTime } from '@flotilla/sys';
import pLimit from 'p-limit';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import type { Containers } from './containers.js';
import { dependenciesAmong } from './dependencies.js';
import type { ContainerContext } from './context.js';
import { logSinkOf } from './log-sink.js';
import { hasBundle, releaseRun } from './release.js';
import { parseRestartPolicy, startsWithEngine } from './restart-policy.js';
import { bundleDir, containerDir, rootfsDir } from './settings.js';
import { isLive, transition } from './state.js';

const atOnce = 8;
const reconcileEveryMs = 60 * 60_000;
const reconcileRetryMs = 5000;
/** Peers do not release what is younger than half a minute, and a call of the process before may still have been under way. */
const reconcileAgainMs = 40_000;
/** Shown for a container whose end nobody saw. */
const unknownExitCode = 137;

/**
 * Brings the records and the machine together after a start of the service: containers that run are watched again, ends that happened meanwhile
 * are handled, half-made creates and starts are undone, half-done removals and restarts are finished.
 */
export class Recovery implements AsyncDisposable {
  readonly #containers: Containers;
  readonly #context: ContainerContext;
  readonly #background = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #reconcileTimer: NodeJS.Timeout | undefined;
  #sweepTimer: NodeJS.Timeout | undefined;

  constructor(containers: Containers) {
    this.#containers = containers;
    this.#context = containers.context;
  }

  /** What must be done before requests are served: running containers are watched, what was half created is gone. */
  async beforeServing(): Promise<void> {
    const { store, layersGate } = this.#context;
    // What is missing of layers is known only when the image service has had its turn.
    const lastBoot = bootOf(await store.lastEngineStart());
    if (lastBoot !== undefined && lastBoot !== bootOf(await markOfEngineStart())) layersGate.shut();
    const limit = pLimit(atOnce);
    const records = store.all();
    await Promise.all(records.map((record) => limit(() => this.#recoverOrHold(record))));
    this.#inBackground('links', () => this.#containers.recoveryParts.linking.recover());
    this.#inBackground('orphaned bundles', () => this.#releaseOrphans());
    this.#reconcile();
    this.#sweepTimer = setInterval(() => this.#sweep(), reconcileEveryMs);
    this.#sweepTimer.unref();
  }

  /**
   * Start what the restart policies want to run, once per start of the engine: each after those that it needs have been tried. What the machine
   * has lost takes part in it.
   */
  async startByPolicies(): Promise<void> {
    const { turns, starter, ender } = this.#containers.recoveryParts;
    const { store } = this.#context;
    const isEngineStart = await store.noteEngineStart(await markOfEngineStart());
    const due = isEngineStart ? store.all().filter(isDueWithEngine) : [];
    const waiting = isEngineStart ? store.all().filter((record) => stateOf(record) === 'restarting') : [];
    for (const { container } of [...due, ...waiting]) turns.expect(container.id);
    turns.plan(dependenciesAmong(store.all()));
    for (const { container } of waiting) ender.scheduleRestart(container.id, 0);
    for (const { id } of due.map(({ container }) => container)) {
      this.#inBackground('start by policy', () => turns.run(id, () => starter.start(id, { kind: 'engine' })));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#reconcileTimer);
    clearInterval(this.#sweepTimer);
    this.#context.layersGate.abandon();
    await Promise.allSettled([...this.#background]);
  }

  /** One that cannot be recovered keeps no other from it. */
  async #recoverOrHold(found: ContainerRecord): Promise<void> {
    const { quarantine } = this.#containers;
    let record = found;
    try {
      if (!this.#context.layersGate.isShut) record = await quarantine.review(found);
      await this.#recoverOne(record);
    } catch (error) {
      const { id } = record.container;
      this.#context.log.error({ containerId: id, err: error }, 'container could not be recovered');
      const current = this.#context.store.get(id);
      if (current === undefined || isLive(stateOf(current)) || stateOf(current) === 'dead') return;
      await quarantine.admit(current, `it could not be recovered: ${messageOf(error)}`).catch((cause: unknown) => {
        this.#context.log.error({ containerId: id, err: cause }, 'quarantine could not be written down');
      });
      if (stateOf(record) === 'creating') this.#inBackground('finish removal', () => this.#finishRemoval(id));
    }
  }

  async #recoverOne(record: ContainerRecord): Promise<void> {
    const { id } = record.container;
    const { ender, starter } = this.#containers.recoveryParts;
    const state = stateOf(record);
    if (state === 'creating') {
      await rm(containerDir(this.#context.settings, id), { recursive: true, force: true });
      await this.#context.store.commit((batch) => batch.remove(id));
      // If this comes to nothing, the reconciliation does it: their holder is no longer in the list.
      const { images, volumes } = this.#context.peers;
      this.#inBackground('undo create', () => Promise.all([images.releaseLayer(id), volumes.releaseAll(id, true)]));
      return;
    }
    if (isLive(state)) {
      await this.#reattach(record);
      return;
    }
    if (record.internals.removal !== null) {
      this.#inBackground('finish removal', () => this.#finishRemoval(id));
      return;
    }
    // Of whom nothing is known, nothing is taken away either: not even its processes.
    if (record.internals.quarantine?.isRecordLost === true) return;
    if (await hasBundle(this.#context, id)) {
      // Under the lock: a start that comes now waits until the old one is gone.
      this.#inBackground('undo start', () =>
        this.#context.locks.run(id, () => releaseRun(this.#context, record, 'unknown')),
      );
    }
    const { backOff, restartRequestId } = record.internals;
    if (state === 'restarting') ender.scheduleRestart(id, backOff?.dueAtMs ?? 0);
    else if (restartRequestId !== null) {
      this.#inBackground('finish restart', () => starter.start(id, { kind: 'restart', requestId: restartRequestId }));
    }
  }

  async #reattach(record: ContainerRecord): Promise<void> {
    const { container, internals } = record;
    const { id } = container;
    const { runtime, settings, log } = this.#context;
    const { ender } = this.#containers.recoveryParts;
    try {
      const found = await runtime.reattach({
        id,
        bundle: bundleDir(settings, id),
        shimAddress: internals.task?.shimAddress ?? '',
        terminal: container.config.tty,
        openStdin: container.config.openStdin,
        stdinOnce: container.config.stdinOnce,
        log: logSinkOf(container, settings),
      });
      if (!('gone' in found)) {
        ender.watch(found);
        // Never started although the record says so: only a hand from outside does that. Its end tells the rest.
        if (found.stateAtFirst === 'created') await found.kill(9, true);
        await this.#correctPause(record, found.stateAtFirst);
        // The commit that froze it has died with the service, and is repeated by whoever asked for it.
        const { commitFreeze = null } = internals;
        if (commitFreeze !== null) await this.#containers.recoveryParts.committer.thaw(id, commitFreeze);
        return;
      }
      log.warn({ containerId: id, exitCode: found.exitCode }, 'container is gone');
      this.#endGone(id, found.exitCode);
    } catch (error) {
      log.error({ containerId: id, err: error }, 'container could not be reached again, it is ended');
      this.#endGone(id, undefined);
    }
  }

  /** A crash between the freezer and the record leaves them apart. */
  async #correctPause({ container, internals }: ContainerRecord, actual: string): Promise<void> {
    const known = stateOf({ container });
    if ((actual !== 'running' && actual !== 'paused') || actual === known) return;
    const state = { ...container.state, status: toStatus(transition(known, actual)) };
    await this.#context.store.commit((batch) => batch.put({ container: { ...container, state }, internals }));
  }

  #endGone(id: string, exitCode: number | undefined): void {
    const exitedAtNs = this.#context.nowNs();
    const exitedAt = new Date(Number(exitedAtNs / 1_000_000n));
    const exit = { exitCode: exitCode ?? unknownExitCode, exitedAt, exitedAtNs, oomKilled: false };
    const { ender, turns } = this.#containers.recoveryParts;
    turns.expect(id);
    this.#inBackground('end of a container', async () => {
      try {
        await ender.endGone(id, exit);
      } catch (error) {
        turns.settle(id);
        throw error;
      }
    });
  }

  #finishRemoval(id: string): Promise<void> {
    return this.#context.locks.run(id, async () => {
      const record = this.#context.store.get(id);
      if (record?.internals.removal !== null && record !== undefined) {
        await this.#containers.recoveryParts.remover.removeLocked(record);
      }
    });
  }

  #review(id: string): Promise<void> {
    return this.#context.locks.run(id, async () => {
      const record = this.#context.store.get(id);
      if (record !== undefined) await this.#containers.quarantine.review(record);
    });
  }

  /** Bundles of containers that no record knows. */
  async #releaseOrphans(): Promise<void> {
    const { settings, store, runtime, rootfs } = this.#context;
    const names = await readdir(settings.bundlesDir).catch(() => []);
    for (const id of names) {
      if (!/^[0-9a-f]{64}$/.test(id) || store.get(id) !== undefined) continue;
      this.#context.log.warn({ containerId: id }, 'a bundle without a container is removed');
      const bundle = bundleDir(settings, id);
      await runtime.cleanup(id, bundle);
      await rootfs.close(rootfsDir(settings, id));
      await rm(bundle, { recursive: true, force: true });
    }
  }

  /** Tell the peers which containers exist, now, soon again, and every hour; sooner while one cannot be told. */
  #reconcile(nextMs = reconcileAgainMs): void {
    this.#inBackground('reconcile', async () => {
      const told = await Promise.all([this.#tellHolders(), this.#tellSandboxes()]);
      if (this.#stop.signal.aborted) return;
      const isTold = told.every(Boolean);
      this.#reconcileTimer = setTimeout(
        () => this.#reconcile(isTold ? reconcileEveryMs : nextMs),
        isTold ? nextMs : reconcileRetryMs,
      );
      this.#reconcileTimer.unref();
    });
  }

  #tellHolders(): Promise<boolean> {
    const { store, peers, holderBarrier } = this.#context;
    return holderBarrier.hold(async () => {
      const ids = [...new Set([...store.all().map(({ container }) => container.id), ...holderBarrier.active()])];
      const told = await Promise.all([
        this.#attempt('image', () => peers.images.reconcile(ids, store.revision)).then((isTold) => {
          if (isTold) this.#imagesServe();
          return isTold;
        }),
        this.#attempt('volume', () => peers.volumes.reconcile(ids, store.revision)),
      ]);
      return told.every(Boolean);
    });
  }

  #imagesServe(): void {
    const { store, layersGate } = this.#context;
    if (!layersGate.isShut) return;
    layersGate.open();
    for (const { container } of store.all()) this.#inBackground('review', () => this.#review(container.id));
  }

  #tellSandboxes(): Promise<boolean> {
    const { store, peers, sandboxBarrier } = this.#context;
    return sandboxBarrier.hold(() => {
      const live = store
        .all()
        .filter((record) => isLive(stateOf(record)) || record.internals.quarantine?.isRecordLost === true);
      const ids = [...new Set([...live.map(({ container }) => container.id), ...sandboxBarrier.active()])];
      return this.#attempt('network', () => peers.networks.reconcile(ids, store.revision));
    });
  }

  async #attempt(peer: string, work: () => Promise<string[]>): Promise<boolean> {
    try {
      const released = await work();
      if (released.length > 0) this.#context.log.info({ peer, released }, 'left-over holders were released');
      return true;
    } catch (error) {
      this.#context.log.warn({ peer, reason: messageOf(error) }, 'holders not reconciled');
      return false;
    }
  }

  /** What can be finished later than at once: removals that failed, and what resumed waits no longer ask for. */
  #sweep(): void {
    for (const record of this.#context.store.all()) {
      if (stateOf(record) !== 'dead') continue;
      const { id } = record.container;
      if (record.internals.removal !== null) this.#inBackground('finish removal', () => this.#finishRemoval(id));
      else this.#inBackground('review of a quarantine', () => this.#review(id));
    }
    this.#inBackground('old tombstones', () => this.#context.store.dropOldTombstones());
  }

  #inBackground(what: string, work: () => Promise<unknown>): void {
    const running = work().catch((error: unknown) => {
      this.#context.log.warn({ step: what, reason: messageOf(error) }, 'recovery step failed');
    });
    this.#background.add(running);
    void running.finally(() => this.#background.delete(running));
  }
}

function isDueWithEngine(record: ContainerRecord): boolean {
  if (stateOf(record) !== 'exited' || record.internals.removal !== null) return false;
  const { hostConfig, state, manuallyStopped, restartCount } = record.container;
  const { name = '', maximumRetryCount = 0 } = hostConfig.restartPolicy ?? {};
  return startsWithEngine(parseRestartPolicy(name, maximumRetryCount), {
    hasBeenStarted: record.internals.hasBeenStarted,
    stoppedByUser: manuallyStopped,
    exitCode: state.exitCode,
    restartCount,
  });
}

/** Of a mark of an engine start. */
const bootOf = (mark: string | undefined): string | undefined => mark?.split(' ')[0];

/** Another value for another boot of the machine or another life of the launcher. */
async function markOfEngineStart(): Promise<string> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
  const launcher = process.ppid;
  return `${boot.trim()} ${launcher} ${processStartTime(launcher) ?? 0}`;
}
