// Which files a build is made of, and whether what is built is still theirs.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');
export const bundleDir = join(root, 'dist/bundle');
export const stampFile = join(bundleDir, 'stamp');

/** Hash of everything a bundle is made of. */
export function sourceStamp() {
  const hash = createHash('sha256');
  const add = (path) =>
    hash
      .update(path)
      .update('\0')
      .update(readFileSync(join(root, path)))
      .update('\0');
  for (const path of ['package-lock.json', 'scripts/bundle.mjs', 'scripts/load-bundle.cjs', 'scripts/generate.mjs'])
    add(path);
  for (const room of ['packages', 'services', 'cli', 'proto']) addTree(room, add);
  return hash.digest('hex');
}

const skipped = /^(node_modules|dist|generated|test|\.generated-.*)$/;

function addTree(dir, add) {
  for (const entry of readdirSync(join(root, dir), { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) {
      if (!skipped.test(entry.name)) addTree(path, add);
    } else if (/\.(ts|json|proto|ya?ml)$/.test(entry.name) && !entry.name.endsWith('.test.ts')) add(path);
  }
}

/** Whether dist/bundle was made from the present sources. */
export function isBundled() {
  return existsSync(stampFile) && readFileSync(stampFile, 'utf8') === sourceStamp();
}

/** Whether node_modules holds what package-lock.json names. */
export function isInstalled() {
  const installedPath = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(installedPath)) return false;
  const { packages: wanted } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const { packages: installed } = JSON.parse(readFileSync(installedPath, 'utf8'));
  return Object.entries(wanted).every(
    ([path, { version, optional, peer, link }]) =>
      !path.includes('node_modules/') || optional || peer || link || installed[path]?.version === version,
  );
}

/** Whether the generated stubs are at least as new as every contract. */
export function isGenerated() {
  const stub = join(root, 'packages/proto/src/generated/.stamp');
  return existsSync(stub) && readFileSync(stub, 'utf8') === protoStamp();
}

/** Hash of everything the stubs are made of. */
export function protoStamp() {
  const hash = createHash('sha256');
  const add = (path) =>
    hash
      .update(path)
      .update('\0')
      .update(readFileSync(join(root, path)))
      .update('\0');
  add('scripts/generate.mjs');
  addTree('proto', add);
  return hash.digest('hex');
}
