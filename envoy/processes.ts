/**
 * Several control-plane processes on one machine that share their ports. Each is a replica of its own over Postgres, as
 * if it ran elsewhere; what they share is only where proxies connect. The first process serves nobody: it hands new
 * connections out in turn, starts again what has died, and ends when the others have.
 */
import cluster, { type Worker } from 'node:cluster';
import type { Logger } from 'pino';

/** Long enough not to spin when a process dies at its start, short enough for its proxies to come back to it. */
const restartAfterMs = 1000;

const readyMessage = 'ready';

/** Whether this is the process that only starts and watches the others. */
export function isSupervisor(processes: number): boolean {
  return processes > 1 && cluster.isPrimary;
}

/** Tells the supervisor, if there is one, that this process serves. */
export function tellReady(): void {
  if (cluster.isWorker) process.send!(readyMessage);
}

export interface Supervisor {
  pids: () => number[];
  stop: () => Promise<void>;
}

/** Starts the processes, with this one's arguments. Resolves when all of them serve. */
export async function supervise(processes: number, log: Logger): Promise<Supervisor> {
  let isStopping = false;
  const workers = new Set<Worker>();
  const start = (): Promise<void> =>
    new Promise((resolve) => {
      const worker = cluster.fork();
      workers.add(worker);
      worker.on('message', (message: unknown) => {
        if (message === readyMessage) resolve();
      });
      worker.once('exit', (code, signal) => {
        workers.delete(worker);
        if (isStopping) return;
        const pid = worker.process.pid;
        log.error({ pid, code, signal }, `control-plane process ${pid} has ended; another is started`);
        setTimeout(() => {
          if (!isStopping) void start().then(resolve);
        }, restartAfterMs);
      });
    });
  await Promise.all(Array.from({ length: processes }, start));
  return {
    pids: () => [...workers].map((worker) => worker.process.pid!),
    stop: async () => {
      isStopping = true;
      const ended = [...workers].map((worker) => new Promise<void>((resolve) => worker.once('exit', () => resolve())));
      for (const worker of workers) worker.process.kill('SIGTERM');
      await Promise.all(ended);
    },
  };
}
