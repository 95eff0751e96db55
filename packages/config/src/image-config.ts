import * as z from 'zod/mini';

export const imageBlock = () =>
  z.strictObject({
    maxConcurrentDownloads: z.int(),
    maxConcurrentUploads: z.int(),
    maxDownloadAttempts: z.int(),
    /** Absent: overlay2 where it works, else vfs. */
    storageDriver: z.optional(z.enum(['overlay2', 'vfs'])),
  });
