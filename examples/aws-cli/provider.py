#!/usr/bin/env python3
"""Cells by a cloud's command line, here AWS's: virtual machines whose tags say all there is to know of them.

Nothing is kept on this machine. A client token per instance makes a machine that is asked for twice one machine. AMI,
SUBNET, INSTANCE_TYPE and CELL_PORT come by the environment, the credentials as the command line wants them. The machine
image starts the service at boot, so a machine is woken by being started.
"""

import datetime
import hashlib
import json
import os
import subprocess
import sys

TAG = "understudy.dev/"
LIVING = "pending,running,stopping,stopped,shutting-down"


class Refused(Exception):
    """Asking again will not help."""


def main():
    call = json.load(sys.stdin)
    return operations[call["operation"]](call)


def ensure(call):
    cell, spec = call["cell"], call["spec"]
    machines = machines_of(cell)
    if any(tag(machine, "destroying") for machine in machines):
        destroy(call)
        raise RuntimeError(f"cell {cell} is being destroyed: ask again")
    print_of = fingerprint(spec)
    if any(tag(machine, "fingerprint") != print_of for machine in machines):
        raise Refused(f"cell {cell} runs from another blueprint or for another service")
    there = {tag(machine, "instance"): machine for machine in machines}
    for instance in call["instances"]:
        if instance in there:
            continue
        tags = {
            "cell": cell,
            "instance": instance,
            "instances": " ".join(call["instances"]),
            "fingerprint": print_of,
            "service": spec["service"],
            "readiness": spec["blueprint"]["readiness"]["path"],
            "owner": spec["owner"],
            "expires-at": call.get("expiresAt", ""),
        }
        aws("run-instances", "--image-id", os.environ["AMI"], "--subnet-id", os.environ["SUBNET"],
            "--instance-type", os.environ.get("INSTANCE_TYPE", "t3.medium"), "--count", "1",
            # The same for a repeated call; another once a machine of this name has come and gone.
            "--client-token", hashlib.sha256(f"{instance}/{generation(cell, instance)}".encode()).hexdigest()[:60],
            "--tag-specifications", "ResourceType=instance,Tags=" + json.dumps(as_tags(tags)),
            # The machine image reads its command there at boot.
            "--user-data", json.dumps(spec["blueprint"]["image"]))
    changed = {"owner": spec["owner"]}
    if "expiresAt" in call:
        changed["expires-at"] = call["expiresAt"]
    ids = [machine["InstanceId"] for machine in machines]
    retag(ids, changed)
    stopped = [machine["InstanceId"] for machine in machines if machine["State"]["Name"] == "stopped"]
    if stopped:
        aws("start-instances", "--instance-ids", *stopped)
    return {"cell": seen(cell)}


def observe(call):
    return {"cell": seen(call["cell"])}


def idle(call):
    machines = machines_of(call["cell"])
    if not machines:
        raise Refused(f"there is no cell {call['cell']} that could lie idle")
    running = [machine["InstanceId"] for machine in machines if machine["State"]["Name"] == "running"]
    if running:
        aws("stop-instances", "--instance-ids", *running)
    return {"cell": seen(call["cell"])}


def renew(call):
    ids = [machine["InstanceId"] for machine in machines_of(call["cell"]) if not tag(machine, "destroying")]
    retag(ids, {"expires-at": call["expiresAt"]})
    return {"renewed": bool(ids)}


def destroy(call):
    ids = [machine["InstanceId"] for machine in machines_of(call["cell"])]
    if ids:
        # Said before it is done: who comes after a crash goes on with it.
        retag(ids, {"destroying": "true"})
        aws("terminate-instances", "--instance-ids", *ids)
        aws("wait", "instance-terminated", "--instance-ids", *ids)
    return {}


def remove_lapsed(call):
    machines = machines_of(call["cell"])
    if not any(tag(machine, "destroying") or has_lapsed(machine) for machine in machines):
        return {"removed": False}
    destroy(call)
    return {"removed": True}


def list_cells(_call):
    cells = {tag(machine, "cell") for machine in described(f"Name=tag-key,Values={TAG}cell", LIVING)}
    return {"cells": [seen(cell) for cell in sorted(cells)]}


operations = {
    "ensure": ensure,
    "observe": observe,
    "idle": idle,
    "renew": renew,
    "destroy": destroy,
    "remove-lapsed": remove_lapsed,
    "list": list_cells,
}


def seen(cell):
    machines = machines_of(cell)
    if not machines:
        return {"cell": cell, "phase": "absent"}
    first = machines[0]
    shown = {"cell": cell, "service": tag(first, "service"), "owner": tag(first, "owner")}
    if tag(first, "expires-at"):
        shown["expiresAt"] = tag(first, "expires-at")
    if any(tag(machine, "destroying") for machine in machines):
        return {**shown, "phase": "deleting"}
    there = {tag(machine, "instance"): machine for machine in machines}
    names = tag(first, "instances").split()
    return {**shown, "instances": [seen_instance(name, there.get(name)) for name in names]}


def seen_instance(name, machine):
    shown = {"name": name, "address": "", "port": 0, "phase": "provisioning"}
    if machine is None:
        return {**shown, "reason": "there is no machine of this name yet"}
    state = machine["State"]["Name"]
    shown["address"] = machine.get("PrivateIpAddress", "")
    shown["port"] = int(os.environ.get("CELL_PORT", "8080"))
    shown["readinessPath"] = tag(machine, "readiness") or "/healthz"
    # Understudy itself asks the readiness path before it believes `ready`.
    phase = {"running": "ready", "stopped": "idle", "shutting-down": "failed"}.get(state, "provisioning")
    return {**shown, "phase": phase, **({} if phase in ("ready", "idle") else {"reason": f"the machine is {state}"})}


def machines_of(cell):
    return described(f"Name=tag:{TAG}cell,Values={cell}", LIVING)


def generation(cell, instance):
    """How many machines of this instance have come and gone, as long as the cloud remembers them."""
    gone = described(f"Name=tag:{TAG}cell,Values={cell}", "terminated")
    return sum(1 for machine in gone if tag(machine, "instance") == instance)


def described(what, states):
    answer = aws("describe-instances", "--filters", what, f"Name=instance-state-name,Values={states}")
    return [machine for reservation in answer["Reservations"] for machine in reservation["Instances"]]


def retag(ids, tags):
    if ids:
        aws("create-tags", "--resources", *ids, "--tags", json.dumps(as_tags(tags)))


def as_tags(tags):
    return [{"Key": TAG + key, "Value": value} for key, value in tags.items()]


def tag(machine, name):
    return next((each["Value"] for each in machine.get("Tags", []) if each["Key"] == TAG + name), "")


def fingerprint(spec):
    text = json.dumps([spec["service"], spec["blueprint"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def has_lapsed(machine):
    if not tag(machine, "expires-at"):
        return False
    end = datetime.datetime.fromisoformat(tag(machine, "expires-at").replace("Z", "+00:00"))
    return end <= datetime.datetime.now(datetime.timezone.utc)


def aws(*arguments):
    run = subprocess.run(["aws", "ec2", *arguments, "--output", "json"], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"aws ec2 {arguments[0]}: {run.stderr.strip()[-1500:]}")
    return json.loads(run.stdout or "{}")


try:
    json.dump(main(), sys.stdout)
except Refused as refusal:
    sys.stderr.write(f"{refusal}\n")
    sys.exit(3)
except Exception as error:  # What goes wrong otherwise may go right the next time.
    sys.exit(f"{type(error).__name__}: {error}")
