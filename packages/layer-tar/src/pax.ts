import { invalidHeader } from './tar-numbers.js';

export type PaxRecord = [key: string, value: string];

/**
 * Splits an extended header, `<length> <key>=<value>\n` repeated, into its records in order.
 *
 * Lengths count bytes of the whole record; values may hold any byte. Keys may repeat (GNU sparse 0.0 relies on it).
 * @throws EngineError `invalidArgument` for anything that does not fit to the byte
 */
export function parsePaxRecords(body: Buffer): PaxRecord[] {
  const records: PaxRecord[] = [];
  let position = 0;
  while (position < body.length) {
    const space = body.indexOf(0x20, position);
    if (space < 0 || space - position > 10) throw invalidHeader('malformed PAX record');
    const digits = body.toString('latin1', position, space);
    if (!/^[1-9]\d*$/.test(digits)) throw invalidHeader('malformed PAX record length');
    const end = position + Number(digits);
    if (end > body.length || end - 1 <= space || body[end - 1] !== 0x0a) throw invalidHeader('malformed PAX record');
    const equals = body.indexOf(0x3d, space + 1);
    if (equals <= space + 1 || equals >= end - 1) throw invalidHeader('malformed PAX record key');
    const key = body.toString('latin1', space + 1, equals);
    const value = body.toString('latin1', equals + 1, end - 1);
    const isText = key === 'path' || key === 'linkpath' || key === 'uname' || key === 'gname';
    if (key.includes('\0') || (isText && value.includes('\0'))) throw invalidHeader('NUL in PAX record');
    records.push([key, value]);
    position = end;
  }
  return records;
}

/** One record, with its own length in front; key and value are latin1. */
export function paxRecord(key: string, value: string): string {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}
