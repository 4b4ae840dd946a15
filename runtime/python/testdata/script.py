# A plain script that does what its query says.
import os
import sys
import time

import beside
from inner import deep

command, _, argument = os.environ["QUERY_STRING"].partition(" ")
count = globals().get("count", 0) + 1


def daemon():
    """A process that nothing of the request holds any more."""
    if os.fork() == 0:
        try:
            os.setsid()
        except PermissionError:
            pass
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", argument])
        os._exit(0)
    os.wait()


if command == "echo":
    sys.stdout.write(sys.stdin.read())
elif command == "binary":
    sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])
elif command == "lines":
    print(sum(1 for _ in sys.stdin))
elif command == "state":
    print(count, beside.calls(), deep.NAME, os.environ.get("LEFT"), hasattr(sys, "left"), sorted(os.listdir(".")), __name__, os.path.basename(__file__), [os.path.basename(a) for a in sys.argv])
    os.environ["LEFT"] = sys.left = "1"
    os.makedirs("a/b")
    with open("a/b/c", "w") as file:
        file.write("left")
    os.chmod("a", 0)
    open(os.path.join(os.environ["TMPDIR"], "d"), "w").close()
    os.set_blocking(1, False)
elif command == "environ":
    print(os.environ.get("OWN"), os.environ.get("REQUEST_METHOD"), os.environ.get("_HANDLER"), os.environ.get("HOME"), os.environ.get("BATON_SANDBOX"))
elif command == "random":
    import random
    import uuid

    print(random.random(), uuid.uuid4())
elif command == "exit":
    print("said")
    sys.exit(int(argument))
elif command == "exittext":
    sys.exit("told")
elif command == "_exit":
    os._exit(int(argument))
elif command == "raise":
    deep.fail()
elif command == "stderr":
    print("out")
    print("to the log", file=sys.stderr)
    sys.stderr.write("and on")
elif command == "kept":
    # It is closed by nobody.
    keep = os.fdopen(os.dup(1), "w")
    keep.write("buffered")
elif command == "atexit":
    import atexit
    import threading

    atexit.register(lambda: print("at exit"))
    threading.Thread(target=lambda: (time.sleep(0.05), print("from a thread"))).start()
elif command == "segv":
    import ctypes

    ctypes.string_at(1)
elif command == "kill":
    os.kill(os.getpid(), 9)
elif command == "memory":
    held = bytearray(1 << 40)
elif command == "slowmemory":
    held = []
    while True:
        held.append(bytearray(1 << 20))
elif command == "spin":
    while True:
        pass
elif command == "wait":
    time.sleep(3600)
elif command == "close":
    sys.stdout.close()
elif command == "close1":
    os.close(1)
elif command == "large":
    for _ in range(int(argument)):
        sys.stdout.write("0123456789abcde\n" * 4096)
elif command == "fork":
    try:
        if os.fork() == 0:
            print("child")
            sys.exit(0)
        os.wait()
        print("parent")
    except OSError as error:
        print(type(error).__name__)
elif command == "bomb":
    while True:
        try:
            os.fork()
        except OSError as error:
            print(type(error).__name__)
            break
elif command == "run":
    import subprocess

    print(subprocess.run(["/bin/sh", "-c", "echo $REQUEST_METHOD"], capture_output=True, text=True, check=True).stdout)
elif command == "daemon":
    daemon()
    print("started")
elif command == "thread":
    import threading

    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    print("left")
elif command == "channel":
    try:
        os.write(3, b"x" * 100)
        print("written")
    except OSError as error:
        print(type(error).__name__)
elif command == "probe":
    for path in sys.stdin.read().split("\n"):
        try:
            with open(path, "rb") as file:
                print("read", path, file.read(40))
        except OSError as error:
            print("no")
elif command == "connect":
    import socket

    for family, address in ((socket.AF_UNIX, argument), (socket.AF_INET, ("127.0.0.1", int(sys.stdin.read())))):
        try:
            socket.socket(family, socket.SOCK_STREAM).connect(address)
            print("connected")
        except OSError:
            print("no")
else:
    print("unknown", command)
