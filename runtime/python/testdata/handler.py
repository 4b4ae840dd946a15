# A handler that does what its query says.
import ctypes
import json
import os
import subprocess
import sys
import threading
import time

from beside import NAME

loads = 0
loads += 1
calls = 0
print("loaded")


def daemon(seconds):
    if os.fork() == 0:
        try:
            os.setsid()
        except PermissionError:
            pass
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", seconds])
        os._exit(0)
    os.wait()


class Odd:
    pass


REPLIES = {
    "dict": {"a": [1, "grün", None]},
    "list": [1, 2],
    "tuple": (1, 2),
    "number": 4.5,
    "true": True,
    "none": None,
    "text": 'plain "text"\n',
    "empty": "",
    "json": '{"as": "it is"}',
    "head": "Content-Type: text/html\n\n<b>",
    "bytes": b"\x00\xff",
    "odd": Odd(),
    "nan": float("nan"),
    "full": {"statusCode": 201, "headers": {"Content-Type": "text/plain", "X-N": 3, "X-B": True, "X-Two": ["a", "b"]}, "cookies": ["a=1", "b=2"], "body": "made"},
    "base64": {"statusCode": "200", "headers": {"content-type": "image/png"}, "body": "AP8=", "isBase64Encoded": True},
    "object": {"statusCode": 200, "body": {"a": 1}},
    "raw": {"statusCode": 200, "body": b"\x01"},
    "nobody": {"statusCode": 204},
    "badstatus": {"statusCode": 99},
    "boolstatus": {"statusCode": True},
    "inject": {"statusCode": 200, "headers": {"Location": "/x\r\nSet-Cookie: a=1"}},
    "injectname": {"statusCode": 200, "headers": {"X: y\nZ": "1"}},
    "badvalue": {"statusCode": 200, "headers": {"X": {}}},
    "badbase64": {"statusCode": 200, "body": "A", "isBase64Encoded": True},
    "surrogate": "\udcff",
}


def handler(event):
    global calls
    calls += 1
    command, _, argument = event["rawQueryString"].partition(" ")
    if command in REPLIES:
        return REPLIES[command]
    if command == "event":
        return event
    if command == "state":
        return [loads, calls, NAME, __name__, os.environ.get("OWN"), os.environ.get("_HANDLER"), os.environ.get("QUERY_STRING"), sys.stdin.read(), len(sys.argv)]
    if command == "length":
        return [len(event["body"]), event["isBase64Encoded"], event["body"][:3]]
    if command == "print":
        print("printed")
        os.write(1, b"written\n")
        print("told", end="", file=sys.stderr)
        return {}
    if command == "raise":
        raise KeyError("gone")
    if command == "exit":
        sys.exit(int(argument) if argument else None)
    if command == "_exit":
        os._exit(int(argument))
    if command == "segv":
        ctypes.string_at(1)
    if command == "memory":
        return len(bytearray(1 << 40))
    if command == "slowmemory":
        held = []
        while True:
            held.append(bytearray(1 << 20))
    if command == "spin":
        while True:
            pass
    if command == "wait":
        time.sleep(3600)
    if command == "recursion":
        return handler(event)
    if command == "large":
        return "x" * int(argument)
    if command == "close":
        os.close(3)
        return {}
    if command == "garbage":
        os.write(3, b"garbage, and more of it than an answer has")
        time.sleep(3600)
    if command == "longer":
        os.write(3, b"BPY1" + (4).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + b"xx")
        time.sleep(3600)
    if command == "fork":
        try:
            pid = os.fork()
        except OSError as error:
            return [type(error).__name__]
        return {"forked": pid > 0} if pid == 0 else [os.waitpid(pid, 0)[0] == pid]
    if command == "forkraise":
        pid = os.fork()
        if pid == 0:
            raise ValueError("in the child")
        return [os.waitpid(pid, 0)[1] != 0]
    if command == "daemon":
        daemon(argument)
        return {}
    if command == "thread":
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return [threading.active_count()]
    if command == "run":
        return [subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout]
    if command == "probe":
        found = []
        for path in json.loads(event["body"]):
            try:
                with open(path, "rb") as file:
                    found.append([path, len(file.read(40))])
            except OSError:
                pass
        return found
    return {"unknown": command}
