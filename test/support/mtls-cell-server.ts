/**
 * A cell that has an identity, for tests: serves nobody whom its authorities have not certified, says its instance's name,
 * and shows a new certificate soon after its file has changed. Arguments: --port N --name INSTANCE [--lies FILE], a file
 * that says how synthetic cells are to misbehave: {"answersAnybody": true} or {"certificateFile", "privateKeyFile"};
 * [--password-file FILE], without whose content it does not start; [--keep-alive], for callers with many requests.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const has = (name: string) => process.argv.includes(name);
const argument = (name: string) => (has(name) ? process.argv[process.argv.indexOf(name) + 1]! : '');
const name = argument('--name');
const liesFile = argument('--lies');

if (has('--password-file') && readFileSync(argument('--password-file'), 'utf8').trim() === '') {
  process.stderr.write('the password is empty\n');
  process.exit(3);
}

interface Lies {
  answersAnybody?: boolean;
  certificateFile?: string;
  privateKeyFile?: string;
}

const lies: Lies =
  name.includes('understudy') && existsSync(liesFile) ? (JSON.parse(readFileSync(liesFile, 'utf8')) as Lies) : {};

const { CELL_TLS_CERT_FILE = '', CELL_TLS_KEY_FILE = '', CELL_TLS_CA_FILE = '' } = process.env;
const read = () => ({
  cert: readFileSync(lies.certificateFile ?? CELL_TLS_CERT_FILE, 'utf8'),
  key: readFileSync(lies.privateKeyFile ?? CELL_TLS_KEY_FILE, 'utf8'),
  ca: readFileSync(CELL_TLS_CA_FILE, 'utf8'),
});

let shown = read();
const isClosed = !lies.answersAnybody;
const server = createServer({ ...shown, requestCert: isClosed, rejectUnauthorized: isClosed }, (_, response) => {
  // A handshake per request, so that every request meets the newest certificate.
  if (!has('--keep-alive')) response.setHeader('connection', 'close');
  response.end(name);
});
setInterval(() => {
  const now = read();
  if (now.cert === shown.cert && now.ca === shown.ca) return;
  shown = now;
  server.setSecureContext(now);
}, 50);
server.listen(Number(argument('--port')), '127.0.0.1');

// A test run that is killed cannot end its cells, which outlive their makers by design.
setTimeout(() => process.exit(), 15 * 60_000).unref();
