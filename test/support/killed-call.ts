/**
 * Calls a provider and dies by SIGKILL just before or just after its k-th side effect: a file that is written, moved or
 * removed, a program that is started, a request that changes something. Run as a process of its own, with one JSON argument.
 */
import childProcess from 'node:child_process';
import fs from 'node:fs/promises';
import http from 'node:http';
import { providerOf, type RemadeProvider } from './remade-provider';
import type { CellSpec } from '../../cells/provider';

export interface KilledCall {
  provider: RemadeProvider;
  operation: 'ensure' | 'idle' | 'destroy';
  spec: CellSpec;
  /** 0: live on. */
  k: number;
  when: 'before' | 'after';
}

const call = JSON.parse(process.argv[2]!) as KilledCall;
let effects = 0;

function die(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Counts an effect; true if it is the one to die after. */
function isLast(): boolean {
  effects += 1;
  if (effects === call.k && call.when === 'before') die();
  return effects === call.k;
}

/** Counts the call as an effect and dies at the k-th. */
function lethal(effect: (...args: unknown[]) => unknown): (...args: unknown[]) => unknown {
  return (...args) => {
    const last = isLast();
    const result = effect(...args);
    if (!last) return result;
    if (result instanceof Promise) return result.finally(die);
    die();
    return result;
  };
}

for (const name of ['mkdir', 'writeFile', 'link', 'rename', 'rm'] as const) {
  // One wrapper for functions of many shapes: their types do not matter here.
  const table = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  table[name] = lethal(table[name]!.bind(fs));
}
childProcess.spawn = lethal(childProcess.spawn as (...args: unknown[]) => unknown) as typeof childProcess.spawn;

const request = http.request.bind(http) as (...args: unknown[]) => http.ClientRequest;
http.request = (...args: unknown[]) => {
  const options = args.find((arg) => typeof arg === 'object') as http.RequestOptions | undefined;
  if (!options || (options.method ?? 'GET') === 'GET') return request(...args);
  const last = isLast();
  const sent = request(...args);
  // The engine has done what it was asked for and the answer is not heard any more.
  if (last) sent.prependListener('response', die);
  return sent;
};

async function main(): Promise<void> {
  const provider = await providerOf(call.provider);
  if (call.operation === 'ensure') await provider.ensure(call.spec);
  else if (call.operation === 'idle') await provider.idle(call.spec.cell, 'stopped');
  else await provider.destroy(call.spec.cell);
}

void main();
