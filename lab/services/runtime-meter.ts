/** What V8 and the event loop of this process say of themselves, per step. */
import { monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import { heapLimitBytes } from '../heap-limit';
import type { StepValues } from './step-values';

/** An idle loop shows this delay, as in the usual exporters: the histogram holds the time between two firings of a timer. */
const resolutionMs = 20;

export class RuntimeMeter {
  private readonly delay = monitorEventLoopDelay({ resolution: resolutionMs });
  private readonly limitBytes = heapLimitBytes();
  private collectingMs = 0;

  constructor() {
    this.delay.enable();
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) this.collectingMs += entry.duration;
    }).observe({ entryTypes: ['gc'] });
  }

  step(elapsedS: number): StepValues {
    const values: StepValues = {
      'heap.used_bytes': getHeapStatistics().used_heap_size,
      'heap.limit_bytes': this.limitBytes,
      // A collection that began in the step before is reported when it ends.
      'gc.share': Math.min(1, this.collectingMs / 1000 / elapsedS),
    };
    if (this.delay.count > 0) values['event_loop.delay_p99_s'] = this.delay.percentile(99) / 1e9;
    this.collectingMs = 0;
    this.delay.reset();
    return values;
  }
}
