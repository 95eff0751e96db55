import { humanSize } from './units.js';

/** How far one step of a pull, push or load is. */
export interface ProgressDetail {
  readonly current?: number;
  readonly total?: number;
  /** What is counted; bytes when absent. */
  readonly units?: string;
  readonly hidecounts?: boolean;
}

/** One line of the JSON progress streams of pull, push, load and build. */
export interface ProgressMessage {
  readonly stream?: string;
  readonly status?: string;
  readonly progressDetail?: ProgressDetail;
  readonly progress?: string;
  readonly id?: string;
  readonly errorDetail?: { readonly code?: number; readonly message: string };
  readonly error?: string;
  readonly aux?: unknown;
}

const BAR_WIDTH = 50;

/** The bar that older clients print as it is: `[=====>     ]  1.2MB/3.4MB`. Empty when there is nothing to show. */
export function progressBar(detail: ProgressDetail): string {
  const current = detail.current ?? 0;
  const total = detail.total ?? 0;
  const units = detail.units ?? '';
  if (current <= 0 && total <= 0) return '';
  if (total <= 0) return units === '' ? humanSize(current).padStart(8) : `${current} ${units}`;
  const filled = Math.min(BAR_WIDTH, Math.trunc(Math.trunc((current / total) * 100) / 2));
  const bar = `[${'='.repeat(filled)}>${' '.repeat(BAR_WIDTH - filled)}] `;
  if (detail.hidecounts === true) return bar;
  if (units !== '') return bar + (current > total ? `${current} ${units}` : `${current}/${total} ${units}`);
  const counted = humanSize(current).padStart(8);
  return bar + (current > total ? counted : `${counted}/${humanSize(total)}`);
}

/** Render one message as dockerd sends it: keys in its order, closed by CR LF. */
export function renderProgress(message: ProgressMessage): string {
  const { stream, status, progressDetail, progress, id, errorDetail, error, aux } = message;
  return `${JSON.stringify({ stream, status, progressDetail, progress, id, errorDetail, error, aux })}\r\n`;
}

/** The last line of a stream that failed after its first byte: both spellings, as dockerd sends it. */
export const renderProgressError = (message: string): string =>
  renderProgress({ errorDetail: { message }, error: message });
