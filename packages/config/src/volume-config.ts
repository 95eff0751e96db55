import * as z from 'zod/mini';

export const volumeBlock = () => z.strictObject({});
