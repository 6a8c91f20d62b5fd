"""Tells Understudy once a second how this process does: JSON to Kafka. Needs the packages kafka-python and psutil."""
import contextlib
import json
import os
import threading
import time
from datetime import datetime, timezone

_took, _failed, _in_flight, _lock = [], [0], [0], threading.Lock()


@contextlib.contextmanager
def timed():
    """Around the work of one request. It has failed unless it says otherwise."""
    outcome, since = {'failed': True}, time.monotonic()
    with _lock:
        _in_flight[0] += 1
    try:
        yield outcome
    finally:
        with _lock:
            _in_flight[0] -= 1
            _took.append(time.monotonic() - since)
            _failed[0] += outcome['failed']


def start():
    if os.environ.get('KAFKA_BROKERS'):
        threading.Thread(target=_run, daemon=True).start()


def _run():
    import psutil
    from kafka import KafkaProducer

    me, producer = psutil.Process(), None
    limit = int(os.environ.get('MEMORY_LIMIT_MIB', '256')) * 1024 * 1024
    me.cpu_percent()
    while True:
        time.sleep(1)
        with _lock:
            took, failed, in_flight = sorted(_took), _failed[0], _in_flight[0]
            _took.clear()
            _failed[0] = 0
        metrics = {
            'cpu.utilization': min(1, me.cpu_percent() / 100 / os.cpu_count()),
            'memory.used_bytes': me.memory_info().rss,
            'memory.limit_bytes': limit,
            'fd.used': me.num_fds(),
            'fd.limit': me.rlimit(psutil.RLIMIT_NOFILE)[0],
            'process.uptime_s': time.time() - me.create_time(),
            'http.request_rate': len(took),
            'http.in_flight': in_flight,
            'http.error_ratio': failed / len(took) if took else 0,
        }
        if took:
            metrics['http.latency_p50_s'] = took[len(took) // 2]
            metrics['http.latency_p99_s'] = took[int(len(took) * 0.99)]
        sample = {
            'schema': 'understudy.telemetry/v1',
            'cell': os.environ['CELL'],
            'instance': os.environ['INSTANCE'],
            'ts': datetime.now(timezone.utc).isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
            'interval_s': 1,
            'metrics': metrics,
        }
        try:
            # Kafka may come later than the shop, and go: the shop goes on.
            producer = producer or KafkaProducer(bootstrap_servers=os.environ['KAFKA_BROKERS'].split(','))
            producer.send('understudy.telemetry.json', json.dumps(sample).encode())
        except Exception as error:
            print(f'telemetry: {error}', flush=True)
