// Runs one bundle with V8's code cache: parsing and compiling a megabyte of JavaScript is most of a service's start.
// Copied beside the bundles by bundle.mjs; `<service>.js` calls it.
'use strict';
const { existsSync, readFileSync, renameSync, rmSync, writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { join } = require('node:path');
const { Script } = require('node:vm');

/**
 * Run `<name>.cjs`, a function expression with CommonJS's parameters. `hash` is of that file.
 *
 * The cache is named after all it depends on but V8's flags, which V8 checks; one that is missing or refused only
 * costs time. With `writeCache` one is written when the process exits.
 */
exports.run = (name, hash, { writeCache = false } = {}) => {
  const filename = join(__dirname, `${name}.cjs`);
  const cacheFile = join(__dirname, `${name}-${hash}-${process.arch}-${process.versions.v8}.cache`);
  const cachedData = existsSync(cacheFile) ? readFileSync(cacheFile) : undefined;
  // esbuild writes ASCII only.
  const script = new Script(readFileSync(filename, 'latin1'), { filename, cachedData });
  if (writeCache) process.once('exit', () => write(cacheFile, script));
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(filename), module, filename, __dirname);
};

/** Also holds the functions that have run until now, which V8 would otherwise compile when they are first called. */
function write(cacheFile, script) {
  const fresh = `${cacheFile}.${process.pid}`;
  try {
    writeFileSync(fresh, script.createCachedData());
    renameSync(fresh, cacheFile);
  } catch {
    rmSync(fresh, { force: true });
  }
}
