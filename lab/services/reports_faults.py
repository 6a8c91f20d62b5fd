"""The faults of the report writer: what each order does to a process that otherwise works (lab/contract.ts)."""

import os
import sys
import threading
import time

FAULTS = ("heap-leak", "fd-leak", "cpu-burn", "slow-code", "gray-slow", "gray-error", "bad-release", "disk-fill",
          "disk-slow")
SHARES = ("cpu-burn", "gray-slow", "gray-error", "bad-release")
TICK_S = 0.1
BURN_PERIOD_S = 0.05
GRAY_SLOW_FACTOR = 20
LEAK_BLOCK_BYTES = 64 * 1024
# A slow disk is slow now and then: bursts of this mean length take this share of the time.
BURST_MEAN_S = 2.0
BURST_SHARE = 0.3


def die_of_memory(work):
    """Runs `work` so that a process out of memory dies of it, whichever thread is the first to notice."""

    def guarded():
        try:
            work()
        except MemoryError:
            os.write(2, b"MemoryError: the address-space limit is reached\n")
            os._exit(134)

    return guarded


class Faults:
    def __init__(self, folder, random, changed_at):
        self.junk = os.path.join(folder, "junk")
        self.levels = dict.fromkeys(FAULTS, 0.0)
        self.random = random
        self.changed_at = changed_at
        self.blocks, self.descriptors = [], []
        self.owed = dict.fromkeys(("heap-leak", "fd-leak", "disk-fill"), 0.0)
        self.order_came = threading.Condition()
        self.burst_until = self.calm_until = 0.0
        self.threads_run = False

    def set(self, fault, level, release):
        with self.order_came:
            self.levels[fault] = level
            if release:
                self.give_back(fault)
            if fault == "bad-release":
                self.changed_at = time.time()
            self.order_came.notify_all()
        if not self.threads_run:
            # From the first fault on only: an instance that never has any stays without them.
            self.threads_run = True
            for work in (self.grow, self.burn):
                threading.Thread(target=die_of_memory(work), daemon=True).start()

    def give_back(self, fault):
        if fault == "heap-leak":
            self.blocks = []
        if fault == "fd-leak":
            for descriptor in self.descriptors:
                os.close(descriptor)
            self.descriptors = []
        if fault == "disk-fill":
            try:
                os.unlink(self.junk)
            except FileNotFoundError:
                pass
        if fault in self.owed:
            self.owed[fault] = 0.0

    # What requests ask.

    def request_factor(self):
        factor = max(1.0, self.levels["slow-code"])
        return factor * GRAY_SLOW_FACTOR if self.random.random() < self.levels["gray-slow"] else factor

    def request_fails(self):
        for fault in ("gray-error", "bad-release"):
            if self.random.random() < self.levels[fault]:
                return fault
        return None

    def write_delay_s(self):
        level = self.levels["disk-slow"]
        if level <= 0:
            return 0.0
        now = time.monotonic()
        with self.order_came:
            if now >= self.calm_until:
                self.burst_until = now + self.random.expovariate(1 / BURST_MEAN_S)
                calm_mean_s = BURST_MEAN_S * (1 - BURST_SHARE) / BURST_SHARE
                self.calm_until = self.burst_until + self.random.expovariate(1 / calm_mean_s)
            in_burst = now < self.burst_until
        return self.random.expovariate(BURST_SHARE / level) if in_burst else 0.0

    # What goes on beside the requests.

    def sleep_until_ordered(self, faults):
        with self.order_came:
            while not any(self.levels[fault] > 0 for fault in faults):
                self.order_came.wait()

    def grow(self):
        """Leaks of memory and descriptors, and the files nobody removes."""
        while True:
            self.sleep_until_ordered(self.owed)
            began_at = time.monotonic()
            time.sleep(TICK_S)
            elapsed_s = time.monotonic() - began_at
            with self.order_came:
                for fault in self.owed:
                    self.owed[fault] += self.levels[fault] * elapsed_s
                self.grow_heap()
                self.grow_descriptors()
                self.grow_junk()

    def grow_heap(self):
        while self.owed["heap-leak"] >= LEAK_BLOCK_BYTES:
            # Not of zeros: those would take no memory before they are touched.
            self.blocks.append(bytearray(b"\x01") * LEAK_BLOCK_BYTES)
            self.owed["heap-leak"] -= LEAK_BLOCK_BYTES

    def grow_descriptors(self):
        try:
            while self.owed["fd-leak"] >= 1:
                self.descriptors.append(os.open("/dev/null", os.O_RDONLY))
                self.owed["fd-leak"] -= 1
        except OSError:
            self.owed["fd-leak"] = 0.0

    def grow_junk(self):
        size = int(self.owed["disk-fill"])
        if size <= 0:
            return
        self.owed["disk-fill"] -= size
        try:
            with open(self.junk, "ab", buffering=0) as file:
                file.write(b"\x01" * size)
        except OSError:
            pass  # The disk is full, as ordered.

    def burn(self):
        while True:
            self.sleep_until_ordered(("cpu-burn",))
            began_at = time.monotonic()
            share = min(1.0, self.levels["cpu-burn"])
            while time.monotonic() - began_at < share * BURN_PERIOD_S:
                pass
            time.sleep(max(0.0, began_at + BURN_PERIOD_S - time.monotonic()))
