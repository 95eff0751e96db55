// Generate the TypeScript stubs of packages/proto from proto/ (buf + ts-proto, no network).
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { protoStamp, root } from './sources.mjs';

const target = join(root, 'packages/proto/src/generated');

// Into a fresh directory first: whoever reads the old stubs meanwhile sees them whole.
const fresh = mkdtempSync(join(root, 'packages/proto/.generated-'));
try {
  execFileSync(join(root, 'node_modules/.bin/buf'), ['generate', '--output', fresh], {
    cwd: join(root, 'proto'),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  viewBytes(fresh);
  writeFileSync(join(fresh, '.stamp'), protoStamp());
  rmSync(target, { recursive: true, force: true });
  renameSync(fresh, target);
} catch (error) {
  rmSync(fresh, { recursive: true, force: true });
  throw error;
}

/** ts-proto copies each encoded message and each bytes field once more to make a Buffer of a Uint8Array; a view will do. */
function viewBytes(dir) {
  const view = [
    '',
    'function viewOf(bytes: Uint8Array): Buffer {',
    '  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);',
    '}',
    '',
  ].join('\n');
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
    const path = join(entry.parentPath, entry.name);
    const before = readFileSync(path, 'utf8');
    const after = before
      .replace(/Buffer\.from\((\w+)\.encode\(value\)\.finish\(\)\)/g, 'viewOf($1.encode(value).finish())')
      .replace(/Buffer\.from\(reader\.bytes\(\)\)/g, 'viewOf(reader.bytes())');
    if (after !== before) writeFileSync(path, after + view);
  }
}
