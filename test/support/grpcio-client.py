"""A client of gRPC's C core: for each line with a number on stdin it makes so many calls, and prints who answered."""

import json
import sys

import grpc

target = sys.argv[1]
with grpc.insecure_channel(target) as channel:
    who = channel.unary_unary("/shop.Shop/Who")
    for line in sys.stdin:
        answered, failed = {}, []
        for _ in range(int(line)):
            try:
                name = who(b"", timeout=10, wait_for_ready=True).decode()
                answered[name] = answered.get(name, 0) + 1
            except grpc.RpcError as error:
                failed.append(f"{error.code().name}: {error.details()}")
        print(json.dumps({"answered": answered, "failed": failed}), flush=True)
