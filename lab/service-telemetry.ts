/** What the reference service says about itself: OpenTelemetry SDK metrics, exported as OTLP records to Kafka. */
import { HostMetrics } from '@opentelemetry/host-metrics';
import { RuntimeNodeInstrumentation } from '@opentelemetry/instrumentation-runtime-node';
import { JsonMetricsSerializer, ProtobufMetricsSerializer } from '@opentelemetry/otlp-transformer';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AggregationTemporality,
  MeterProvider,
  PeriodicExportingMetricReader,
  type PushMetricExporter,
  type ResourceMetrics,
} from '@opentelemetry/sdk-metrics';
import { heapLimitBytes } from './heap-limit';
import { KafkaSink } from './kafka-sink';
import { otlpTopic } from './topics';

/** As OpenTelemetry's semantic conventions recommend for `http.server.request.duration`, in seconds. */
const durationBoundariesS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

export interface TelemetryOptions {
  service: string;
  cell: string;
  instance: string;
  brokers: string[];
  stepMs: number;
  encoding: 'protobuf' | 'json';
}

export interface ServiceTelemetry {
  requestBegins(): void;
  requestEnds(status: number, durationS: number): void;
  stop(): Promise<void>;
}

/** Serialises each collection and hands it to Kafka; reports success even for a dropped one, since nobody may wait for it. */
class KafkaMetricExporter implements PushMetricExporter {
  constructor(
    private readonly sink: KafkaSink,
    private readonly key: string,
    private readonly encoding: 'protobuf' | 'json',
  ) {}

  export(metrics: ResourceMetrics, done: (result: { code: number }) => void): void {
    const serializer = this.encoding === 'json' ? JsonMetricsSerializer : ProtobufMetricsSerializer;
    const bytes = serializer.serializeRequest(metrics);
    if (bytes) this.sink.send(this.key, Buffer.from(bytes));
    done({ code: 0 });
  }

  selectAggregationTemporality(): AggregationTemporality {
    return AggregationTemporality.CUMULATIVE;
  }

  forceFlush(): Promise<void> {
    return Promise.resolve();
  }

  shutdown(): Promise<void> {
    return this.sink.stop();
  }
}

export function startTelemetry(options: TelemetryOptions): ServiceTelemetry {
  const sink = new KafkaSink(options.brokers, options.instance, otlpTopic);
  const provider = new MeterProvider({
    resource: resourceFromAttributes({
      'service.name': options.service,
      'service.instance.id': options.instance,
      'cell.id': options.cell,
    }),
    readers: [
      new PeriodicExportingMetricReader({
        exporter: new KafkaMetricExporter(sink, options.cell, options.encoding),
        exportIntervalMillis: options.stepMs,
        exportTimeoutMillis: options.stepMs,
      }),
    ],
  });
  // Process groups only: the system groups read all of /proc on each collection, in every instance, to say the same.
  new HostMetrics({ meterProvider: provider, metricGroups: ['process.cpu', 'process.memory'] }).start();
  const runtime = new RuntimeNodeInstrumentation();
  runtime.setMeterProvider(provider);

  const meter = provider.getMeter('understudy.lab.reference-service');
  const duration = meter.createHistogram('http.server.request.duration', {
    unit: 's',
    description: 'Duration of HTTP server requests.',
    advice: { explicitBucketBoundaries: durationBoundariesS },
  });
  const active = meter.createUpDownCounter('http.server.active_requests', {
    unit: '{request}',
    description: 'Number of active HTTP server requests.',
  });
  meter
    .createObservableGauge('process.uptime', { unit: 's', description: 'The time the process has been running.' })
    .addCallback((result) => result.observe(process.uptime()));
  meter
    .createObservableGauge('v8js.memory.heap.limit', { unit: 'By', description: 'Heap size at which V8 gives up.' })
    .addCallback((result) => result.observe(heapLimitBytes()));

  const route = { 'http.request.method': 'GET', 'http.route': '/items/:id' };
  const activeAttributes = { 'http.request.method': 'GET', 'url.scheme': 'http' };
  return {
    requestBegins: () => active.add(1, activeAttributes),
    requestEnds(status, durationS) {
      active.add(-1, activeAttributes);
      duration.record(durationS, { ...route, 'http.response.status_code': status });
    },
    async stop() {
      runtime.disable();
      await provider.shutdown({ timeoutMillis: 1000 }).catch(() => undefined);
    },
  };
}
