const ascii = /^[\x01-\x7f]*$/;

/** A latin1 name as node:fs takes it: the string itself where that is the same, else the bytes. */
export function fsPath(name: string): string | Buffer {
  return ascii.test(name) ? name : Buffer.from(name, 'latin1');
}

/**
 * The path that `name` means inside a root: no leading `/`, no `.`, no empty parts; `..` stops at the root, as when
 * Docker unpacks in its chroot.
 */
export function cleanName(name: string): string {
  if (!name.includes('//') && !/(^|\/)\.{0,2}(\/|$)/.test(name)) return name;
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return parts.join('/');
}
