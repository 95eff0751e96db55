import { defineConfig } from 'vitest/config';

const resolve = { conditions: ['source', 'node', 'import', 'default'] };
const ssr = { resolve };
// A condition that fails takes this long to say so; one that holds takes no time, however busy the machine is.
const expectOptions = { poll: { timeout: 20_000, interval: 20 } };

export default defineConfig({
  resolve,
  ssr,
  test: {
    // Most of the time they wait: for processes, timers and the kernel. One worker leaves half of two cores idle.
    maxWorkers: 2,
    projects: [
      {
        resolve,
        ssr,
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'services/*/src/**/*.test.ts', 'cli/src/**/*.test.ts'],
          testTimeout: 30_000,
          expect: expectOptions,
        },
      },
      {
        resolve,
        ssr,
        test: {
          name: 'service',
          include: ['services/*/test/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'cli/test/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          expect: expectOptions,
        },
      },
      {
        resolve,
        ssr,
        test: {
          name: 'api',
          include: ['test/api/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          expect: expectOptions,
        },
      },
      {
        resolve,
        ssr,
        test: {
          name: 'e2e',
          include: ['test/{e2e,chaos,soak}/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          expect: expectOptions,
        },
      },
    ],
  },
});
