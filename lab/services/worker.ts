/**
 * The lab's queue worker on Kafka: `GET /work` sends a job to the cell's topic and is answered when this process has
 * consumed it and done its work; so the caller's latency is the lag from end to end. `slots` jobs are worked on at once,
 * `serviceMs` each; `knobs.callers` (1000) is how many requests may wait for their jobs, `knobs.timeoutMs` (5000) how long.
 */
import { AnswerError, knob, readInstanceConfig, runService } from './harness';
import type { Harness, InstanceConfig, ServiceDefinition } from './harness';
import { JobQueue } from './job-queue';
import { keepIdleClientsIdle } from './quiet-kafka';

const retryStartMs = 1000;

export function workerService(config: InstanceConfig): ServiceDefinition {
  const { dependency: broker, slots, cell, instance } = config;
  if (!broker) throw new Error('worker needs the address of Kafka as dependency');
  const timeoutMs = knob(config, 'timeoutMs', 5000);
  let slowness = 1;
  let harness: Harness;
  let queue: JobQueue;

  async function connectQueue(): Promise<void> {
    for (;;) {
      const work = (): Promise<void> => harness.hold(harness.drawServiceMs() * slowness);
      queue = new JobQueue({ broker: broker!, topic: `lab.jobs.${cell}`, sender: instance, slots, work });
      try {
        return await queue.start();
      } catch (error) {
        process.stderr.write(`${instance} waits for Kafka: ${(error as Error).message}\n`);
        await queue.stop();
        await harness.hold(retryStartMs);
      }
    }
  }

  function inTime(done: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new AnswerError(504, `Not done within ${timeoutMs} ms.`)), timeoutMs);
      done
        .then(resolve, (error: Error) => reject(new AnswerError(503, `The job was not taken: ${error.message}`)))
        .finally(() => clearTimeout(timer));
    });
  }

  return {
    async start(ofInstance) {
      harness = ofInstance;
      await connectQueue();
    },
    async work(key) {
      await inTime(queue.send(key));
      return { key };
    },
    metrics: () => ({ 'queue.depth': queue.depth, 'queue.oldest_age_s': queue.oldestAgeS }),
    stop: () => queue.stop(),
    faults: { 'consumer-slow': (factor) => (slowness = Math.max(1, factor)) },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  // The slots are those of the consumer; requests only wait for their jobs.
  keepIdleClientsIdle();
  runService({ ...config, slots: knob(config, 'callers', 1000) }, workerService(config));
}
