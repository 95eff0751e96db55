/** struct vfs_cap_data and vfs_ns_cap_data of linux/capability.h: revision and flags, four words, and in the third revision the user who must be root. */
const revisionMask = 0xff00_0000;
const revision2 = 0x0200_0000;
const revision3 = 0x0300_0000;
const bytes2 = 20;
const bytes3 = 24;

/**
 * The value of `security.capability` for a root that is called otherwise: capabilities count only in the user namespace whose root is named, which the second
 * revision leaves out for the machine's. Anything else than a value of these two is given back as it is.
 */
export function withRootOf(value: Buffer, uidOf: (uid: number) => number): Buffer {
  if (value.length !== bytes2 && value.length !== bytes3) return value;
  const magic = value.readUInt32LE(0);
  const expected = value.length === bytes2 ? revision2 : revision3;
  if ((magic & revisionMask) >>> 0 !== expected) return value;
  const root = uidOf(value.length === bytes2 ? 0 : value.readUInt32LE(bytes2));
  const flags = (magic & ~revisionMask) >>> 0;
  const mapped = Buffer.alloc(root === 0 ? bytes2 : bytes3);
  value.copy(mapped, 0, 0, bytes2);
  mapped.writeUInt32LE(flags + (root === 0 ? revision2 : revision3), 0);
  if (root !== 0) mapped.writeUInt32LE(root, bytes2);
  return mapped;
}
