#!/usr/bin/env python3
"""A provider outside Understudy's own code: runs cells as processes of this machine, by the exec contract.

Reads one call as JSON from standard input and writes the answer to standard output. What it knows lies in the folder
that EXAMPLE_STATE names, one file per cell. Which processes run is never written down: each carries its cell's mark in
its environment, so that one that was started just before a crash is found again.
"""

import contextlib
import datetime
import fcntl
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time

STATE = os.environ["EXAMPLE_STATE"]
MARK = "EXAMPLE_INSTANCE"


class Refused(Exception):
    """Asking again will not help."""


def main():
    call = json.load(sys.stdin)
    if call.get("contract") != "understudy.exec/v1":
        raise Refused(f"this provider does not know the contract {call.get('contract')}")
    os.makedirs(STATE, exist_ok=True)
    # One call at a time: whatever two workers ask at the same moment happens one after the other.
    with open(os.path.join(STATE, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = operations[call["operation"]](call)
    json.dump(answer, sys.stdout)


def ensure(call):
    spec, name = call["spec"], call["cell"]
    record = read(name)
    if record and record.get("deleting"):
        destroy(call)
        record = None
    if record is None:
        # On disk before the first process, so that nothing runs of which nobody knows.
        record = {"spec": spec, "run": secrets.token_hex(6), "ports": {}, "started": {}}
    if record["spec"]["service"] != spec["service"] or record["spec"]["blueprint"] != spec["blueprint"]:
        raise Refused(f"cell {name} runs from another blueprint or for another service")
    record["spec"]["owner"] = spec["owner"]
    record["expiresAt"] = call.get("expiresAt", record.get("expiresAt"))
    running = processes(record)
    for instance in call["instances"]:
        record["ports"].setdefault(instance, free_port(record))
    record.pop("idle", None)
    # What runs is not at rest: the program that was to end it may itself have been killed before.
    at_rest = [instance for instance in record.get("stopped", []) if not running.get(instance)]
    record["stopped"] = at_rest
    write(name, record)
    for instance in call["instances"]:
        for pid in running.get(instance, []):
            os.kill(pid, signal.SIGCONT)
        if not running.get(instance):
            record["started"][instance] = time.time()
            record["stopped"] = at_rest = [other for other in at_rest if other != instance]
            write(name, record)
            start(record, instance)
    return {"cell": seen(name)}


def observe(call):
    return {"cell": seen(call["cell"])}


def idle(call):
    record = read(call["cell"])
    if record is None:
        raise Refused(f"there is no cell {call['cell']} that could lie idle")
    record["idle"] = True
    running = processes(record)
    if call["idle"] == "frozen":
        write(call["cell"], record)
        for pids in running.values():
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
    else:
        # Written down while they live: whoever is dead and not in this list died by itself.
        record["stopped"] = sorted({*record.get("stopped", []), *running})
        write(call["cell"], record)
        end(record)
    return {"cell": seen(call["cell"])}


def renew(call):
    record = read(call["cell"])
    if record is None or record.get("deleting"):
        return {"renewed": False}
    record["expiresAt"] = call["expiresAt"]
    write(call["cell"], record)
    return {"renewed": True}


def destroy(call):
    record = read(call["cell"])
    if record is None:
        return {}
    record["deleting"] = True
    write(call["cell"], record)
    end(record)
    for instance in record["ports"]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(log_of(instance))
    os.remove(file_of(call["cell"]))
    return {}


def remove_lapsed(call):
    record = read(call["cell"])
    if record is None or not (record.get("deleting") or has_lapsed(record)):
        return {"removed": False}
    destroy(call)
    return {"removed": True}


def list_cells(_call):
    names = [entry[:-5] for entry in sorted(os.listdir(STATE)) if entry.endswith(".json")]
    return {"cells": [seen(name) for name in names]}


operations = {
    "ensure": ensure,
    "observe": observe,
    "idle": idle,
    "renew": renew,
    "destroy": destroy,
    "remove-lapsed": remove_lapsed,
    "list": list_cells,
}


def seen(name):
    """What is really there of the cell, as the contract wants it."""
    record = read(name)
    if record is None:
        return {"cell": name, "phase": "absent"}
    spec, running = record["spec"], processes(record)
    cell = {"cell": name, "service": spec["service"], "owner": spec["owner"]}
    if record.get("expiresAt"):
        cell["expiresAt"] = record["expiresAt"]
    if record.get("deleting"):
        return {**cell, "phase": "deleting"}
    return {**cell, "instances": [seen_instance(record, instance, running) for instance in record["ports"]]}


def seen_instance(record, instance, running):
    blueprint = record["spec"]["blueprint"]
    address, port = blueprint["network"]["address"], record["ports"][instance]
    readiness = blueprint["readiness"]
    shown = {"name": instance, "address": address, "port": port, "readinessPath": readiness["path"]}
    if not running.get(instance):
        if instance in record.get("stopped", []):
            return {**shown, "phase": "idle"}
        if instance not in record["started"]:
            return {**shown, "phase": "provisioning", "reason": "not started yet"}
        return {**shown, "phase": "failed", "reason": f"it has ended; its last words: {last_words(instance)}"}
    if record.get("idle"):
        return {**shown, "phase": "idle"}
    problem = why_not_ready(address, port, readiness["path"])
    if problem is None:
        return {**shown, "phase": "ready"}
    is_late = time.time() - record["started"][instance] > readiness["timeoutS"]
    return {**shown, "phase": "failed" if is_late else "provisioning", "reason": problem}


def start(record, instance):
    spec = record["spec"]
    words = {
        "cell": spec["cell"],
        "service": spec["service"],
        "instance": instance,
        "address": spec["blueprint"]["network"]["address"],
        "port": record["ports"][instance],
        "memoryLimitMib": spec["blueprint"]["resources"]["memoryLimitMib"],
        "dir": STATE,
    }

    def fill(text):
        for word, value in words.items():
            text = text.replace("{" + word + "}", str(value))
        return text

    image = spec["blueprint"]["image"]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment.update({key: fill(value) for key, value in image["environment"].items()})
    environment[MARK] = mark(record, instance)
    with open(log_of(instance), "ab") as log:
        try:
            subprocess.Popen(
                [fill(argument) for argument in image["command"]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=image.get("workingDirectory"),
            )
        except OSError as error:
            log.write(f"{error}\n".encode())


def mark(record, instance):
    return f"{os.path.realpath(STATE)}/{record['run']}/{instance}"


def end(record):
    while any(processes(record).values()):
        for pids in processes(record).values():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def processes(record):
    """The living processes of each instance, children too."""
    wanted = {f"{MARK}={mark(record, instance)}".encode(): instance for instance in record["ports"]}
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as environ:
                instance = next((wanted[line] for line in environ.read().split(b"\0") if line in wanted), None)
            with open(f"/proc/{entry}/stat") as stat:
                is_zombie = stat.read().rpartition(")")[2].split()[0] in "ZX"
        except (OSError, StopIteration):
            continue
        if instance is not None and not is_zombie:
            found.setdefault(instance, []).append(int(entry))
    return found


def why_not_ready(address, port, path):
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
            status = connection.recv(64).split(b" ")
    except OSError as error:
        return f"{path} on {address}:{port}: {error}"
    code = status[1].decode() if len(status) > 1 else "nothing"
    return None if code.startswith("2") else f"{path} answered {code}"


def free_port(record):
    taken = set(record["ports"].values())
    for name in (entry[:-5] for entry in os.listdir(STATE) if entry.endswith(".json")):
        taken.update((read(name) or {"ports": {}})["ports"].values())
    for _ in range(500):
        port = random.randint(15000, 31999)
        with socket.socket() as probe:
            if port not in taken and probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("there is no free port between 15000 and 31999")


def has_lapsed(record):
    if not record.get("expiresAt"):
        return False
    end = datetime.datetime.fromisoformat(record["expiresAt"].replace("Z", "+00:00"))
    return end <= datetime.datetime.now(datetime.timezone.utc)


def last_words(instance):
    try:
        with open(log_of(instance), errors="replace") as log:
            return " | ".join(log.read().strip().splitlines()[-3:])[-400:]
    except FileNotFoundError:
        return "none"


def file_of(name):
    return os.path.join(STATE, f"{name}.json")


def log_of(instance):
    return os.path.join(STATE, f"{instance}.log")


def read(name):
    try:
        with open(file_of(name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def write(name, record):
    """Whole or not at all, also when this program is killed in the middle."""
    with open(file_of(name) + ".new", "w") as file:
        json.dump(record, file)
    os.replace(file_of(name) + ".new", file_of(name))


try:
    main()
except Refused as refusal:
    sys.stderr.write(f"{refusal}\n")
    sys.exit(3)
except Exception as error:  # What goes wrong otherwise may go right the next time.
    sys.exit(f"{type(error).__name__}: {error}")
