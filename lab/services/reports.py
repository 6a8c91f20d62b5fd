"""The lab's report writer: a service in another language than the rest, with a bounded pool of threads, that writes one
file per request. Run as `python3 lab/services/reports.py '<json InstanceConfig>'` (lab/contract.ts); standard library
only, Python 3.9 or later.

Knobs: bytes (per report, default 8192), keepBytes (reports beyond it are removed, oldest first, default 4 MiB),
fdLimit (of descriptors, default as inherited); and, as in the other services, queue (longest line; makes
http.in_flight_limit known), changeAgeS (age of the last change at start) and seed.
"""

import errno
import json
import math
import os
import random
import resource
import selectors
import socket
import sys
import threading
import time
from collections import deque

from reports_faults import FAULTS, SHARES, Faults, die_of_memory

# Threads' heaps of their own would reserve address space that counts against the limit without being used; a fixed
# threshold gives leaked blocks back to the system when they are released.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "32768"}
THREAD_STACK_BYTES = 256 * 1024
MOST_HEADER_BYTES = 16 * 1024
ACCEPT_AGAIN_S = 0.2
# As in the other services: connections are renewed now and then, and the spread of the service time is the same.
REQUESTS_PER_CONNECTION = 100
SERVICE_TIME_SPREAD = 0.35
LONGEST_UNDECLARED_LINE = 2000
STATUS_TEXT = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error",
               503: "Service Unavailable", 507: "Insufficient Storage"}


def quantile(ordered, share):
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Meter:
    """What happened in the step that is under way. Its lock is held for a few instructions only."""

    def __init__(self):
        self.lock = threading.Lock()
        self.latencies, self.errors = [], 0
        self.write_seconds, self.bytes_written = [], 0

    def request(self, status, seconds):
        with self.lock:
            self.latencies.append(seconds)
            self.errors += status >= 500

    def write(self, size, seconds):
        with self.lock:
            self.write_seconds.append(seconds)
            self.bytes_written += size

    def take(self, elapsed_s):
        with self.lock:
            latencies, self.latencies = self.latencies, []
            writes, self.write_seconds = self.write_seconds, []
            errors, self.errors = self.errors, 0
            size, self.bytes_written = self.bytes_written, 0
        metrics = {"http.request_rate": len(latencies) / elapsed_s, "disk.write_rate": size / elapsed_s}
        if latencies:
            latencies.sort()
            metrics["http.error_ratio"] = errors / len(latencies)
            metrics["http.latency_p50_s"] = quantile(latencies, 0.5)
            metrics["http.latency_p99_s"] = quantile(latencies, 0.99)
        if writes:
            metrics["disk.write_latency_s"] = quantile(sorted(writes), 0.99)
        return metrics


class Reports:
    """The files: one per request, the oldest removed when they come to more than `keep_bytes`."""

    def __init__(self, folder, keep_bytes, faults, meter):
        self.folder, self.keep_bytes, self.faults, self.meter = folder, keep_bytes, faults, meter
        self.lock = threading.Lock()
        self.kept, self.kept_bytes, self.made = deque(), 0, 0

    def write(self, content):
        began_at, written = time.monotonic(), 0
        with self.lock:
            self.made += 1
            path = os.path.join(self.folder, "report-%d.txt" % self.made)
        time.sleep(self.faults.write_delay_s())
        try:
            with open(path, "wb", buffering=0) as file:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, "No space left for the whole report")
                os.fsync(file.fileno())
            written = len(content)
        except OSError:
            # Part of a report is none; its space is what the next one needs.
            try:
                os.unlink(path)
            except OSError:
                pass
            raise
        finally:
            self.meter.write(written, time.monotonic() - began_at)
        self.forget_oldest(path, len(content))

    def forget_oldest(self, path, size):
        removed = []
        with self.lock:
            self.kept.append((path, size))
            self.kept_bytes += size
            while self.kept_bytes > self.keep_bytes and len(self.kept) > 1:
                old, old_size = self.kept.popleft()
                self.kept_bytes -= old_size
                removed.append(old)
        for old in removed:
            os.unlink(old)


class Connection:
    def __init__(self, sock):
        self.socket, self.received, self.is_open = sock, b"", True
        self.request_began_at, self.answered = 0.0, 0


class Service:
    """One thread reads requests and says the metrics; the pool's threads do the work and answer."""

    def __init__(self, config):
        knobs = config.get("knobs", {})
        self.config = config
        self.pool_size = int(config["slots"])
        self.service_s = config["serviceMs"] / 1000
        self.content = (b"report line of sixty-four bytes, with its end of line counted in\n" *
                        (int(knobs.get("bytes", 8192)) // 65 + 1))[:int(knobs.get("bytes", 8192))]
        self.declared_line = knobs.get("queue")
        self.longest_line = int(self.declared_line or LONGEST_UNDECLARED_LINE)
        self.random = random.Random("%s %s" % (config["instance"], knobs.get("seed", 1)))
        folder = config.get("dir") or os.path.join("/tmp", "lab-reports-%d" % os.getpid())
        os.makedirs(folder, exist_ok=True)
        self.meter = Meter()
        self.faults = Faults(folder, self.random, time.time() - knobs.get("changeAgeS", 0))
        self.reports = Reports(folder, int(knobs.get("keepBytes", 4 * 1024 * 1024)), self.faults, self.meter)
        self.line = deque()
        self.work = threading.Condition()
        self.busy = self.in_flight = 0
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", int(config.get("port", 0))), backlog=512)
        self.listener.setblocking(False)
        self.accept_again_at = None

    def run(self):
        for _ in range(self.pool_size):
            threading.Thread(target=die_of_memory(self.serve_line), daemon=True).start()
        self.selector.register(self.listener, selectors.EVENT_READ)
        say({"msg": "ready", "port": self.listener.getsockname()[1], "pid": os.getpid()})
        step_s = self.config["stepMs"] / 1000
        last_at = time.time()
        next_at = (math.floor(last_at / step_s) + 1) * step_s
        while True:
            now = time.time()
            if now >= next_at:
                self.say_step(next_at, now - last_at)
                last_at, next_at = now, (math.floor(now / step_s) + 1) * step_s
            if self.accept_again_at is not None and now >= self.accept_again_at:
                self.accept_again_at = None
                self.selector.register(self.listener, selectors.EVENT_READ)
            wake_at = next_at if self.accept_again_at is None else min(next_at, self.accept_again_at)
            for key, _ in self.selector.select(max(0, wake_at - time.time())):
                if key.fileobj is self.listener:
                    self.accept()
                else:
                    self.read(key.data)

    def say_step(self, at, elapsed_s):
        metrics = self.meter.take(elapsed_s)
        metrics["http.in_flight"] = self.in_flight
        metrics["pool.used"] = self.busy
        metrics["pool.limit"] = self.pool_size
        metrics["change.age_s"] = time.time() - self.faults.changed_at
        if self.declared_line is not None:
            metrics["http.in_flight_limit"] = self.pool_size + int(self.declared_line)
        say({"at": round(at * 1000), "metrics": {name: float("%.4g" % value) for name, value in metrics.items()}})

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors: the caller stays in the backlog, and asking again at once would burn a core.
            self.selector.unregister(self.listener)
            self.accept_again_at = time.time() + ACCEPT_AGAIN_S
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def close(self, connection):
        if not connection.is_open:
            return
        connection.is_open = False
        self.selector.unregister(connection.socket)
        connection.socket.close()

    def read(self, connection):
        try:
            chunk = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        connection.received += chunk
        if not chunk or len(connection.received) > 2 * MOST_HEADER_BYTES:
            self.close(connection)
            return
        head, end, rest = connection.received.partition(b"\r\n\r\n")
        if not end:
            return
        method, path, length = parse_head(head)
        if len(rest) < length:
            return
        connection.received = rest[length:]
        connection.request_began_at = time.monotonic()
        self.route(connection, method, path.partition("?")[0], rest[:length])

    def route(self, connection, method, path, body):
        if method == "GET" and path == "/healthz":
            answer(connection, 200, {"cell": self.config["cell"], "instance": self.config["instance"]})
        elif method == "POST" and path == "/admin/fault":
            answer(connection, *self.order(body))
        elif method == "GET" and path == "/work":
            with self.work:
                self.in_flight += 1
                if len(self.line) < self.longest_line:
                    self.line.append(connection)
                    self.work.notify()
                    return
            self.finish(connection, 503, {"error": "Too many requests wait."})
        else:
            answer(connection, 404, {"error": "Nothing at %s %s." % (method, path)})

    def order(self, body):
        try:
            order = json.loads(body)
            fault, level = order["fault"], order["level"]
            if fault not in FAULTS:
                raise ValueError("the faults are %s" % ", ".join(FAULTS))
            if isinstance(level, bool) or not 0 <= level <= (1 if fault in SHARES else math.inf):
                raise ValueError("level %s is outside of the range of %s" % (level, fault))
        except (ValueError, KeyError, TypeError) as error:
            return 400, {"error": "Expected {fault, level, release?}: %s" % error}
        self.faults.set(fault, float(level), order.get("release") is True)
        return 200, {"fault": fault, "level": level}

    def serve_line(self):
        while True:
            with self.work:
                while not self.line:
                    self.work.wait()
                connection = self.line.popleft()
                if not connection.is_open:
                    # A caller that has given up would only delay those who still wait.
                    self.in_flight -= 1
                    self.meter.request(499, time.monotonic() - connection.request_began_at)
                    continue
                self.busy += 1
            status, answered = self.make_report()
            with self.work:
                self.busy -= 1
            self.finish(connection, status, answered)

    def make_report(self):
        failed = self.faults.request_fails()
        factor = self.faults.request_factor()
        # Log-normal with serviceMs as its mean.
        spread = self.random.gauss(-SERVICE_TIME_SPREAD ** 2 / 2, SERVICE_TIME_SPREAD)
        time.sleep(self.service_s * factor * math.exp(spread))
        if failed:
            return 500, {"error": failed}
        try:
            self.reports.write(self.content)
        except OSError as error:
            return (507 if error.errno == errno.ENOSPC else 500), {"error": str(error)}
        return 200, {"bytes": len(self.content)}

    def finish(self, connection, status, body):
        with self.work:
            self.in_flight -= 1
        self.meter.request(status, time.monotonic() - connection.request_began_at)
        answer(connection, status, body)


def parse_head(head):
    lines = head.decode("latin-1").split("\r\n")
    method, path = (lines[0].split(" ") + ["", ""])[:2]
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            length = int(value)
    return method, path, length


def answer(connection, status, body):
    text = json.dumps(body)
    connection.answered += 1
    ends = "connection: close\r\n" if connection.answered >= REQUESTS_PER_CONNECTION else ""
    head = "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n"
    try:
        connection.socket.sendall((head % (status, STATUS_TEXT[status], len(text), ends) + text).encode())
    except OSError:
        pass  # The caller has gone; the reader hears of it and closes.


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def limit_memory(limit_bytes):
    """Sets the address-space limit so that resident memory ends at the limit: what is mapped by now but not resident
    (code, stacks) is added, and from here on both grow alike."""
    pages = [int(n) for n in open("/proc/self/statm").read().split()[:2]]
    page = resource.getpagesize()
    total = limit_bytes + (pages[0] - pages[1]) * page
    resource.setrlimit(resource.RLIMIT_AS, (total, total))


def main():
    config = json.loads(sys.argv[1])
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    threading.stack_size(THREAD_STACK_BYTES)
    fd_limit = int(config.get("knobs", {}).get("fdLimit", 0))
    if fd_limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd_limit, fd_limit))
    service = Service(config)
    if config.get("memoryLimitBytes"):
        limit_memory(int(config["memoryLimitBytes"]))
    die_of_memory(service.run)()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
