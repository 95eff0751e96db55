// A worker says its name.
const { hostname } = require('node:os');
require('node:http')
  .createServer((_, response) => response.end(hostname()))
  .listen(4000, () => console.log(`worker ${hostname()} listens`));
process.on('SIGTERM', () => process.exit(0));
