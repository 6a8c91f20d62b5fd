#!/usr/bin/env python3
"""Has Smallstep's step-ca sign the certificates of cells: the request on standard input, the chain on standard output.

STEP_CA_URL, STEP_ROOT (the root's certificate), STEP_PROVISIONER and STEP_PROVISIONER_PASSWORD_FILE say which authority and
who asks. `step` makes a token for exactly the wanted name; it and the password are in no argument. Exit code 3: refused.
"""

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request


def main():
    wanted = {"csr": sys.stdin.read(), "ott": token(), "notAfter": os.environ["CERTIFICATE_LIFETIME_S"] + "s"}
    question = urllib.request.Request(
        os.environ["STEP_CA_URL"].rstrip("/") + "/1.0/sign",
        data=json.dumps(wanted).encode(),
        headers={"content-type": "application/json"},
    )
    trusting = ssl.create_default_context(cafile=os.environ["STEP_ROOT"])
    try:
        with urllib.request.urlopen(question, timeout=20, context=trusting) as answer:
            sys.stdout.write("".join(json.load(answer)["certChain"]))
    except urllib.error.HTTPError as error:
        reason = f"step-ca answered {error.code}: {error.read().decode(errors='replace').strip()[:1000]}"
        # The name or the lifetime is not allowed. Anything else, such as a token that has grown old, may go right the next time.
        if error.code in (400, 403):
            sys.stderr.write(reason)
            sys.exit(3)
        sys.exit(reason)


def token():
    # Which authority, which provisioner and the file of its password `step` reads from the environment as well.
    made = subprocess.run(["step", "ca", "token", os.environ["CERTIFICATE_NAME"]], capture_output=True, text=True)
    if made.returncode != 0:
        sys.exit(f"step ca token: {made.stderr.strip()[-1000:]}")
    return made.stdout.strip()


try:
    main()
except OSError as error:
    sys.exit(f"{os.environ['STEP_CA_URL']}: {error}")
