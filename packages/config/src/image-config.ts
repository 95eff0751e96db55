import * as z from 'zod/mini';

export const imageBlock = () =>
  z.strictObject({
    maxConcurrentDownloads: z.int(),
    maxConcurrentUploads: z.int(),
    maxDownloadAttempts: z.int(),
  });
