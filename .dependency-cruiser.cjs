// The import arrows of CONTRIBUTING.md's room table: services -> packages, never service -> service.
const only = (from, allowed) => ({
  name: `${from}-arrows`,
  severity: 'error',
  from: { path: `^packages/${from}/src`, pathNot: '\\.test\\.ts$' },
  to: { path: '^packages/', pathNot: `^packages/(${[from, ...allowed].join('|')})/` },
});
/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true, dependencyTypesNot: ['type-only'] } },
    {
      name: 'service-imports-service',
      severity: 'error',
      from: { path: '^services/([^/]+)/' },
      to: { path: '^(services|cli)/', pathNot: '^services/$1/' },
    },
    {
      name: 'package-imports-up',
      severity: 'error',
      from: { path: '^packages/(?!testkit/)' },
      to: { path: '^(services|cli|test|bench)/' },
    },
    {
      name: 'testkit-is-for-tests',
      severity: 'error',
      from: { path: '^(services|packages|cli)/[^.]*src/', pathNot: '(\\.test\\.ts$|^packages/testkit/)' },
      to: { path: '^packages/testkit/' },
    },
    {
      name: 'leveldown-only-in-store',
      severity: 'error',
      from: { path: '^(services|packages|cli)/', pathNot: '^packages/store/' },
      to: { path: 'leveldown' },
    },
    only('errors', []),
    only('sys', ['errors']),
    only('netlink', ['errors', 'sys']),
    only('oci', ['errors']),
    only('layer-tar', ['errors', 'sys']),
    only('store', ['errors', 'proto', 'log']),
    only('events', ['errors', 'proto', 'log', 'store']),
    only('docker-api', ['errors']),
    only('config', ['errors']),
    only('rpc', ['errors', 'log', 'proto', 'config', 'store', 'sys']),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)dist/|generated/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['source', 'import', 'node', 'default'],
      extensions: ['.ts', '.js', '.json'],
    },
  },
};
