/**
 * A small service for cells in tests: answers /healthz at once, /work slowly until it has been preloaded, and keeps a
 * number of entries (50 after /fill) that a peer can hand over. Arguments: --port N [--exit-at-once] [--never-ready]
 * [--cold-ms N] [--hold-mib N] [--start-ms N].
 */
import http from 'node:http';

const argument = (name: string) => process.argv[process.argv.indexOf(name) + 1];
const has = (name: string) => process.argv.includes(name);

if (has('--exit-at-once')) {
  process.stderr.write('cannot read the ledger\n');
  process.exit(3);
}

const port = Number(argument('--port'));
const coldMs = has('--cold-ms') ? Number(argument('--cold-ms')) : 0;
/** Filled, so that it is really there. */
const held = has('--hold-mib') ? Buffer.alloc(Number(argument('--hold-mib')) * 1024 * 1024, 1) : undefined;
let entries = 0;
let connections = 0;

const server = http.createServer((req, res) => {
  const answer = (status: number, body: unknown) => {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
  };
  if (req.url === '/healthz')
    return answer(has('--never-ready') ? 503 : 200, { entries, connections, pid: process.pid, held: held?.length });
  if (req.url === '/fill') return answer(200, { entries: (entries = 50) });
  if (req.url === '/export') return answer(200, { entries });
  if (req.url === '/work') return void setTimeout(() => answer(200, {}), entries > 0 ? 0 : coldMs);
  if (req.url === '/broken') return answer(500, {});
  if (req.url === '/preload' && req.method === 'POST') {
    let text = '';
    req.on('data', (chunk) => (text += String(chunk)));
    req.on('end', () => {
      const { from } = JSON.parse(text) as { from: string };
      http
        .get(`http://${from}/export`, (peer) => {
          let body = '';
          peer.on('data', (chunk) => (body += String(chunk)));
          peer.on('end', () => {
            entries = (JSON.parse(body) as { entries: number }).entries;
            answer(200, { entries });
          });
        })
        .on('error', () => answer(502, { error: `no answer from ${from}` }));
    });
    return;
  }
  answer(404, {});
});
server.on('connection', () => (connections += 1));
setTimeout(() => server.listen(port, '127.0.0.1'), has('--start-ms') ? Number(argument('--start-ms')) : 0);

// A test run that is killed cannot end its cells, which outlive their makers by design.
setTimeout(() => process.exit(), 15 * 60_000).unref();
