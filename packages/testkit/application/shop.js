// The application: /health, /visits (a row in PostgreSQL, a counter in Redis), /workers (who answers by name).
const dns = require('node:dns').promises;
const http = require('node:http');
const { readFileSync } = require('node:fs');
const { hostname } = require('node:os');
const { Pool } = require('pg');
const redis = require('redis');

const { DB_HOST, CACHE_HOST, WORKER_HOST, PASSWORD_FILE = '/run/secrets/db_password' } = process.env;
const password = () => readFileSync(PASSWORD_FILE, 'utf8').trim();
const db = new Pool({ host: DB_HOST, user: 'postgres', database: 'postgres', password });
const cache = redis.createClient({ socket: { host: CACHE_HOST } });
for (const client of [db, cache]) client.on('error', (error) => console.error(`connection: ${error.message}`));

const routes = {
  '/health': async () => {
    await db.query('SELECT 1');
    return { cache: await cache.ping() };
  },
  '/visits': async () => {
    await db.query('INSERT INTO visits DEFAULT VALUES');
    const { rows } = await db.query('SELECT count(*)::int AS visits FROM visits');
    return { visits: rows[0].visits, hits: await cache.incr('hits'), by: hostname() };
  },
  '/workers': async () => {
    const addresses = await dns.resolve4(WORKER_HOST);
    const names = addresses.map((address) => fetch(`http://${address}:4000/`).then((answer) => answer.text()));
    return { workers: (await Promise.all(names)).sort() };
  },
};

const server = http.createServer(async (request, response) => {
  const route = routes[request.url];
  if (route === undefined) return response.writeHead(404).end();
  try {
    response.end(JSON.stringify(await route()));
  } catch (error) {
    response.writeHead(503).end(error.message);
  }
});

async function main() {
  await cache.connect();
  await db.query('CREATE TABLE IF NOT EXISTS visits (id serial PRIMARY KEY, at timestamptz DEFAULT now())');
  server.listen(3000, () => console.log(`shop ${hostname()} listens`));
}
process.on('SIGTERM', () => process.exit(0));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
