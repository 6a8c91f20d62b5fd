#!/usr/bin/env python3
"""Cells by Terraform: one folder with a state of its own per cell, all from the module beside this file (main.tf).

An apply takes longer than a call may. So a call writes down what is wanted and starts this program anew, as
`provider.py apply CELL`, which brings it about in the background: one at a time for each cell, until what is applied is
what is wanted. After a crash the next call for the cell starts it again.

TERRAFORM_CELLS names the folder of all cells; TF_VAR_... and the cloud's credentials come by the environment, too.
"""

import datetime
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

ROOT = os.environ["TERRAFORM_CELLS"]
MODULE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.tf")


class Refused(Exception):
    """Asking again will not help."""


def main():
    call = json.load(sys.stdin)
    if call["operation"] == "list":
        os.makedirs(ROOT, exist_ok=True)
        cells = sorted(entry for entry in os.listdir(ROOT) if os.path.isfile(variables_of(entry)))
        return {"cells": [seen(cell) for cell in cells]}
    os.makedirs(ROOT, exist_ok=True)
    # Calls for one cell come one after the other; those for different cells need not wait for each other.
    with open(os.path.join(ROOT, f".{call['cell']}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return operations[call["operation"]](call)


def ensure(call):
    cell, spec = call["cell"], call["spec"]
    known = variables(cell)
    if known and known["destroying"]:
        want(cell, known)
        raise RuntimeError(f"cell {cell} is still being destroyed: ask again")
    wanted = {
        "cell": cell,
        "service": spec["service"],
        "owner": spec["owner"],
        "blueprint": spec["blueprint"],
        "instances": call["instances"],
        "expires_at": call.get("expiresAt", (known or {}).get("expires_at", "")),
        "idle": False,
        "destroying": False,
    }
    if known and (known["blueprint"], known["service"]) != (wanted["blueprint"], wanted["service"]):
        raise Refused(f"cell {cell} runs from another blueprint or for another service")
    want(cell, wanted)
    return {"cell": seen(cell)}


def observe(call):
    # After a crash, or a wish that came while the last one was being granted, somebody has to go on.
    want(call["cell"], variables(call["cell"]))
    return {"cell": seen(call["cell"])}


def idle(call):
    known = variables(call["cell"])
    if not known or known["destroying"]:
        raise Refused(f"there is no cell {call['cell']} that could lie idle")
    want(call["cell"], {**known, "idle": True})
    return {"cell": seen(call["cell"])}


def renew(call):
    known = variables(call["cell"])
    if not known or known["destroying"]:
        return {"renewed": False}
    # Not worth an apply of its own: the janitor reads it here.
    write(call["cell"], {**known, "expires_at": call["expiresAt"]})
    return {"renewed": True}


def destroy(call):
    known = variables(call["cell"])
    if known:
        # Said before it is done: who comes after a crash goes on with it.
        want(call["cell"], {**known, "destroying": True})
        # Waited for: whoever destroys a cell wants to know that it has gone. A call that is too long is made again.
        while variables(call["cell"]):
            time.sleep(0.5)
            want(call["cell"], variables(call["cell"]))
    return {}


def remove_lapsed(call):
    known = variables(call["cell"])
    if not known or not (known["destroying"] or has_lapsed(known)):
        return {"removed": False}
    destroy(call)
    return {"removed": True}


operations = {
    "ensure": ensure,
    "observe": observe,
    "idle": idle,
    "renew": renew,
    "destroy": destroy,
    "remove-lapsed": remove_lapsed,
}


def seen(cell):
    known = variables(cell)
    if not known:
        return {"cell": cell, "phase": "absent"}
    shown = {"cell": cell, "service": known["service"], "owner": known["owner"]}
    if known["expires_at"]:
        shown["expiresAt"] = known["expires_at"]
    if known["destroying"]:
        return {**shown, "phase": "deleting"}
    is_applied = applied(cell) == digest(known)
    outputs = json.loads(terraform(cell, "output", "-json") or "{}") if is_applied else {}
    addresses = outputs.get("addresses", {}).get("value", {})
    return {**shown, "instances": [seen_instance(known, name, addresses.get(name)) for name in known["instances"]]}


def seen_instance(known, name, address):
    shown = {"name": name, "address": address or "", "port": 0, "phase": "provisioning"}
    if not address:
        return {**shown, "reason": "Terraform has not made it yet"}
    shown = {**shown, "port": int(os.environ.get("CELL_PORT", "8080"))}
    # Understudy itself asks the readiness path before it believes this.
    phase = "idle" if known["idle"] else "ready"
    return {**shown, "phase": phase, "readinessPath": known["blueprint"]["readiness"]["path"]}


def want(cell, wanted):
    """Writes down what is wanted, and has it brought about unless it is so already."""
    if wanted is None:
        return
    os.makedirs(folder(cell), exist_ok=True)
    if variables(cell) != wanted:
        write(cell, wanted)
    if applied(cell) != digest(wanted) or wanted["destroying"]:
        with open(os.path.join(folder(cell), "terraform.log"), "ab") as log:
            subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "apply", cell],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def apply(cell):
    with open(os.path.join(ROOT, f".{cell}.apply"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # Another does it, and sees what is wanted now before it ends.
        shutil.copyfile(MODULE, os.path.join(folder(cell), "main.tf"))
        terraform(cell, "init", "-input=false", "-no-color")
        while (wanted := variables(cell)) is not None and applied(cell) != digest(wanted):
            if wanted["destroying"]:
                terraform(cell, "destroy", "-auto-approve", "-input=false", "-no-color")
                shutil.rmtree(folder(cell))
                return
            terraform(cell, "apply", "-auto-approve", "-input=false", "-no-color")
            with open(os.path.join(folder(cell), "applied"), "w") as file:
                file.write(digest(wanted))


def terraform(cell, *arguments):
    run = subprocess.run(["terraform", *arguments], cwd=folder(cell), capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"terraform {arguments[0]}: {run.stderr.strip()[-1500:]}")
    return run.stdout


def has_lapsed(known):
    if not known["expires_at"]:
        return False
    end = datetime.datetime.fromisoformat(known["expires_at"].replace("Z", "+00:00"))
    return end <= datetime.datetime.now(datetime.timezone.utc)


def folder(cell):
    return os.path.join(ROOT, cell)


def variables_of(cell):
    return os.path.join(folder(cell), "cell.auto.tfvars.json")


def applied(cell):
    """The digest of what was applied last."""
    try:
        with open(os.path.join(folder(cell), "applied")) as file:
            return file.read()
    except FileNotFoundError:
        return None


def digest(wanted):
    """Of all that an apply is for; the end of a lease is not."""
    text = json.dumps({**wanted, "expires_at": ""}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def variables(cell):
    try:
        with open(variables_of(cell)) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def write(cell, wanted):
    with open(variables_of(cell) + ".new", "w") as file:
        json.dump(wanted, file)
    os.replace(variables_of(cell) + ".new", variables_of(cell))


try:
    if sys.argv[1:2] == ["apply"]:
        apply(sys.argv[2])
    else:
        json.dump(main(), sys.stdout)
except Refused as refusal:
    sys.stderr.write(f"{refusal}\n")
    sys.exit(3)
except Exception as error:  # What goes wrong otherwise may go right the next time.
    sys.exit(f"{type(error).__name__}: {error}")
