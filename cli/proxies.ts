/** `understudy proxies` and `understudy audit`: who has which version of what, who refused what, and who changed what. */
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { AuditEntry } from '../blueprints/audit';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import type { ProxyStatus } from '../envoy/xds/inspection';

const settingsOption = () => new Option('--settings <file>', 'settings of Understudy').makeOptionMandatory();

interface Answered {
  replica: string;
  proxies: ProxyStatus[];
}

export function proxiesCommand(): Command {
  return new Command('proxies')
    .description('The proxies of the control planes: which version of what they hold, and what they refused and why.')
    .addOption(settingsOption())
    .option('--address <host:port...>', 'operations addresses of control planes; default: the one in the settings')
    .option('--all', 'every resource, not only what is not in sync')
    .option('--json', 'as JSON')
    .action(async (options: { settings: string; address?: string[]; all?: boolean; json?: boolean }) => {
      const { controlPlane } = loadSettings(options.settings);
      const addresses = options.address ?? [controlPlane.operations.address];
      const answers = await Promise.all(addresses.map((address) => ask(address, controlPlane)));
      if (options.json) return console.log(JSON.stringify(answers, null, 2));
      console.log(proxiesAsText(answers, Date.now(), options.all ?? false));
    });
}

export function auditCommand(): Command {
  return new Command('audit')
    .description(
      'Who asked for which change, what was changed, and what became of it at the proxies; the newest first.',
    )
    .addOption(settingsOption())
    .option('--service <name>', 'of this service only')
    .option('--limit <n>', 'how many entries', wholeNumber, 50)
    .option('--json', 'as JSON')
    .action(async (options: { settings: string; service?: string; limit: number; json?: boolean }) => {
      const { postgres } = loadSettings(options.settings);
      const store = await ConfigurationStore.connect(postgres.url, { timeoutMs: 5000 });
      try {
        const entries = await store.audit.list({ service: options.service, limit: options.limit });
        console.log(options.json ? JSON.stringify(entries, null, 2) : auditAsText(entries));
      } finally {
        await store.close();
      }
    });
}

/** With the bearer token of the settings, and over HTTPS with the certificate of our own processes. */
function ask(address: string, { operations, trafficClientTls }: Settings['controlPlane']): Promise<Answered> {
  const token = operations.tokenFile && readFileSync(operations.tokenFile, 'utf8').trim();
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const own = operations.tls &&
    trafficClientTls && {
      cert: readFileSync(trafficClientTls.certificateFile),
      key: readFileSync(trafficClientTls.privateKeyFile),
      ca: readFileSync(trafficClientTls.caFile),
    };
  const url = new URL(`${operations.tls ? 'https' : 'http'}://${address}/proxies`);
  return new Promise((resolve, reject) => {
    const send = operations.tls ? httpsRequest : httpRequest;
    const request = send(url, { headers, timeout: 5000, ...own }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(JSON.parse(body) as Answered);
        else reject(new Error(`the control plane at ${address} answers ${response.statusCode}: ${body.trim()}`));
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', (error) => reject(new Error(`no control plane at ${address}: ${error.message}`)));
    request.end();
  });
}

export function proxiesAsText(answers: readonly Answered[], now: number, isAll: boolean): string {
  const lines: string[] = [];
  for (const { replica, proxies } of answers) {
    lines.push(`${replica}: ${proxies.length} ${proxies.length === 1 ? 'stream' : 'streams'}`);
    for (const proxy of [...proxies].sort((a, b) => (a.node < b.node ? -1 : 1))) {
      const ageS = Math.round((now - Date.parse(proxy.connectedAt)) / 1000);
      const who = proxy.identity ? ` as ${proxy.identity}` : ' without certificate';
      const what = [proxy.protocol, proxy.agent].filter(Boolean).join(', ');
      lines.push(`  ${proxy.node}  ${proxy.state}  (${what}, for ${ageS} s,${who})`);
      for (const { type, resources } of proxy.types) {
        for (const { name, holds, wanted, state, error } of resources) {
          if (!isAll && state === 'accepted') continue;
          const versions =
            holds === wanted ? (holds ?? 'gone') : `${holds ?? 'nothing'} instead of ${wanted ?? 'gone'}`;
          lines.push(`    ${state.padEnd(8)}  ${type} ${name}  ${versions}${error ? `: ${error}` : ''}`);
        }
      }
    }
  }
  return lines.join('\n');
}

export function auditAsText(entries: readonly AuditEntry[]): string {
  if (entries.length === 0) return 'Nothing is written down.';
  return entries.map(auditLine).join('\n');
}

function auditLine(entry: AuditEntry): string {
  const split = (shares: AuditEntry['from']): string =>
    shares?.map(({ cell, shareBp }) => `${cell} ${shareBp}`).join(', ') ?? 'unknown';
  const { kind, details } = entry;
  const proxies = ['acknowledged', 'refused', 'pending', 'gone'].flatMap((what) => {
    const list = details[what];
    return Array.isArray(list) && list.length > 0 ? [`${list.length} ${what}`] : [];
  });
  return [
    entry.at,
    (kind === 'request' && typeof details.method === 'string' ? details.method : kind).padEnd(10),
    `${entry.service ?? '-'}${entry.epoch === null ? '' : ` epoch ${entry.epoch}`}`,
    ...(entry.to ? [`${split(entry.from)} -> ${split(entry.to)}`] : []),
    ...(entry.by ? [`by ${entry.by}`] : []),
    ...(entry.identity ? [`as ${entry.identity}`] : []),
    ...(entry.reason ? [`(${entry.reason})`] : []),
    ...(entry.outcome ? [entry.outcome] : []),
    ...(proxies.length > 0 ? [proxies.join(', ')] : []),
  ].join('  ');
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('expected a whole number above 0.');
}
