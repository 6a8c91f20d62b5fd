/**
 * A cell that tries what it is asked to, for tests of what bounds it: /write?path= and /read?path= a file, /call?port= a
 * server of this machine, /keep?port= as well and stay connected. Answers `ok` or the error's code. Arguments: --port N.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';

const attempts: Record<string, (parameter: URLSearchParams) => void | Promise<void>> = {
  '/healthz': () => undefined,
  '/write': (parameter) => writeFileSync(parameter.get('path')!, 'x'),
  '/read': (parameter) => void readFileSync(parameter.get('path')!),
  '/call': (parameter) => call(Number(parameter.get('port')), false),
  '/keep': (parameter) => call(Number(parameter.get('port')), true),
};

function call(port: number, isKept: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: 5_000 });
    socket.once('connect', () => {
      if (!isKept) socket.destroy();
      resolve();
    });
    socket.once('timeout', () => socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
    socket.once('error', reject);
  });
}

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url!, 'http://cell');
  const attempt = async () => attempts[pathname]?.(searchParams);
  attempt().then(
    () => response.end('ok'),
    (error: NodeJS.ErrnoException) => response.end(error.code ?? error.message),
  );
});
server.listen(Number(process.argv[process.argv.indexOf('--port') + 1]), '127.0.0.1');

// A test run that is killed cannot end its cells, which outlive their makers by design.
setTimeout(() => process.exit(), 15 * 60_000).unref();
