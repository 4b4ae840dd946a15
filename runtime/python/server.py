# baton's Python server: one interpreter that runs one function, one request at
# a time. It is started in the sandbox, as code that was compiled before; doc.go
# says what it is, wire.go draws the frames of its channel.
#
# A file that defines the handler is loaded once and its handler called per
# request. Any other file is a plain script: it is compiled once, and runs in a fork
# of this process, which never runs anything of it itself.
#
# What is in this process costs each fork: a page of its memory some 0.1 us to
# share, and one that is written to some 2 us. So a script's server
# imports little, and leaves what needs memory to a process that ends.
import sys

started_with = frozenset(sys.modules)

import atexit
import builtins
import gc
import marshal
import os
import resource
import struct
import time

import _operator
import _socket
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import SourceFileLoader

CHANNEL = 3
MAGIC = 0x31595042  # BPY1

CONFIG = struct.Struct("<IIQ")  # magic, bytes of variables, address space
REQUEST = struct.Struct("<IIIIQ")  # magic, flags, bytes of the event or variables, milliseconds left, bytes of the body
ANSWER = struct.Struct("<IIiIQ")  # magic, kind, status, flags, bytes
PART = struct.Struct("<I")  # bytes of the next part of a streamed body; 0: it is over

HELLO, READY, ENDED, ANSWERED, FAILED, NO_FORK = 1, 2, 3, 4, 5, 6
LEFT, OUT_OF_MEMORY, RETIRE, HANDLER, COMPUTES, WAITS = 1, 2, 4, 8, 16, 32  # flags of an answer
STREAMED = 1  # flag of a request: the body comes in parts, or is the descriptor that comes along

NO_REQUEST = 97  # exit code of a fork whose channel has ended
FAILED_FOR = 1.0  # seconds for which a file that cannot be loaded is not tried again
MEASURED = 16  # of so many requests, one is looked at: did it wait for anything but the processor?
FOLDER_MAX = 1000  # files of a folder that are compiled ahead
READ = 1 << 16

os.environ.pop("LD_BIND_NOW", None)  # symbols are looked up once, here

OURS = "<baton>"  # the file name of this code

# argv: -c, file, folder, function ("": handler, if there is one; "?f": f, if there is one), name, memory in MiB, filter
FILE, FOLDER, FUNCTION, NAME, MEMORY, FILTER = sys.argv[1:7]

channel = _socket.socket(-1, -1, -1, CHANNEL)


def answer(kind, status=0, flags=0, number=0, payload=b""):
    channel.sendall(ANSWER.pack(MAGIC, kind, status, flags, number) + payload)


def receive(size):
    """Exactly size bytes, or the end of this process."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        n = channel.recv_into(view)
        if n == 0:
            os._exit(0)
        view = view[n:]
    return data


# Processes: a function may start as many as its descriptor says. The sandbox
# grants one more, which is for our own forks; the filter takes it back.


def make_refuse():
    """A function that refuses new processes from here on, or None."""
    if not FILTER:
        return None
    try:
        # Not ctypes, which is half a megabyte.
        from _ctypes import call_function, dlopen, dlsym

        prctl = dlsym(dlopen(None, os.RTLD_NOW), "prctl")
    except (ImportError, OSError):
        return None
    code = bytes.fromhex(FILTER)
    # struct sock_fprog; the bytes of an object are at the end of it, before a NUL.
    program = struct.pack("@HP", len(code) // 8, id(code) + bytes.__basicsize__ - 1)

    def refuse(mode=2, call=call_function, prctl=prctl, program=program, keep=code):
        return call(prctl, (22, mode, program)) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

    return refuse


def waits():
    """How often this process has waited for something, beside the processor."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def sweep():
    """Ends the processes that a request has left behind. True: one is left."""
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if os.getpid() != 1:
                return True  # it runs, and its number is not known here
            os.kill(-1, 9)
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return False


# The source.


def tree_of(path):
    """The text, the syntax tree and the code of a file; of a wrong one, None."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = compile(text, path, "exec", 0x400, dont_inherit=True)  # PyCF_ONLY_AST
        return tree, compile(text, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return None, None  # running it says what is wrong


def names_of(statements):
    """The names that statements bind, those in if, try and with among them."""
    for s in statements:
        kind = type(s).__name__
        if kind in ("FunctionDef", "AsyncFunctionDef", "ClassDef"):
            yield s.name
        elif kind in ("Import", "ImportFrom"):
            for alias in s.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif kind in ("Assign", "AnnAssign"):
            for target in s.targets if kind == "Assign" else [s.target]:
                if type(target).__name__ == "Name":
                    yield target.id
        elif kind in ("If", "Try", "With"):
            for part in ("body", "orelse", "finalbody"):
                yield from names_of(getattr(s, part, ()))
            for handler in getattr(s, "handlers", ()):
                yield from names_of(handler.body)


def imports_of(tree, package):
    """The modules that a tree imports, by their full names: what may be one of
    them, and names in it that may be others."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        kind = type(node).__name__
        if kind == "Import":
            for alias in node.names:
                yield alias.name, ()
        elif kind == "ImportFrom":
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join(base + ([node.module] if node.module else []))
            if name or node.level:
                yield name, [alias.name for alias in node.names]
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                waiting.extend(v for v in value if hasattr(v, "_fields"))
            elif hasattr(value, "_fields"):
                waiting.append(value)


def is_standard(name):
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return name in names
    if name in sys.builtin_module_names:
        return True
    place = os.path.dirname(os.__file__)  # before 3.10
    return any(os.path.exists(os.path.join(place, file)) for file in (name + ".py", os.path.join(name, "__init__.py")))


def look():
    """Looks at the file, in a process of its own: the function that is its
    handler, or its code and what look_through finds."""
    name = FUNCTION.lstrip("?")
    sure = name if name == FUNCTION else ""
    nothing = (sure, None, {}, ())
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            tree, code = tree_of(FILE)
            found = nothing
            if tree is not None and not sure:
                names = set(names_of(tree.body))
                if name in names or "handler" in names:
                    found = (name if name in names else "handler", None, {}, ())
                else:
                    found = ("", code) + look_through(tree)
            data = marshal.dumps(found)
            while data:
                data = data[os.write(into, data) :]
        finally:
            os._exit(0)
    os.close(into)
    data = b""
    while True:
        part = os.read(out, READ)
        if not part:
            break
        data += part
    os.close(out)
    os.waitpid(pid, 0)
    try:
        return marshal.loads(data)
    except (EOFError, ValueError, TypeError):
        return nothing


# What must not be imported for somebody else: it opens a browser, a window, or prints.
NOT_AHEAD = {"antigravity", "this", "idlelib", "turtledemo", "turtle", "tkinter", "test", "__main__", "readline", "rlcompleter", "site", "sitecustomize", "usercustomize"}


def look_through(tree):
    """Follows the imports from the script through its folder: the code of the
    files there, and the names of the standard modules that they use."""
    codes, standard, seen = {}, set(), set()
    roots = [os.path.dirname(FILE), FOLDER] if FOLDER else []
    waiting = [(tree, [])]
    while waiting and len(seen) < FOLDER_MAX:
        tree, package = waiting.pop()
        for name, more in imports_of(tree, package):
            for full in [name] + [name + "." + m for m in more]:
                if full in seen:
                    continue
                seen.add(full)
                parts = full.split(".")
                for i in range(1, len(parts) + 1):
                    for root in roots:
                        path = os.path.join(root, *parts[:i])
                        for file, inside in ((path + ".py", parts[: i - 1]), (os.path.join(path, "__init__.py"), parts[:i])):
                            if file not in codes and os.path.isfile(file):
                                found, code = tree_of(file)
                                if code is not None:
                                    codes[file] = code
                                    waiting.append((found, inside))
            if is_standard(name.partition(".")[0]):
                standard.add(name)
    return codes, standard


def own_names():
    """The modules that the function brings along, by their first names."""
    names = set()
    for folder in {os.path.dirname(FILE), FOLDER} if FOLDER else ():
        try:
            names.update(entry.partition(".")[0] for entry in os.listdir(folder))
        except OSError:
            pass
    return names


def forget(names):
    """Whoever imports one of these names gets what Python would find."""
    for name in list(sys.modules):
        if name.partition(".")[0] in names and name not in started_with:
            del sys.modules[name]


def set_path():
    if FOLDER:
        sys.path[:0] = [os.path.dirname(FILE)] + ([FOLDER] if FOLDER != os.path.dirname(FILE) else [])


def report(error):
    """Prints an exception as Python does, without our own frames."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in (OURS, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"):
            trace = trace.tb_next
        error.__traceback__ = trace
        sys.excepthook(type(error), error, trace)
    except BaseException:
        try:
            sys.stderr.write("%s: %s\n" % (type(error).__name__, error))
        except BaseException:
            pass


def exit_code(error):
    """What an exception that nobody has caught makes the exit code."""
    if not isinstance(error, SystemExit):
        report(error)
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    try:
        print(error.code, file=sys.stderr)
    except Exception:
        pass
    return 1


def flush():
    """Flushes the standard streams. False: not everything could be written."""
    whole = True
    try:
        sys.stdout.flush()
    except Exception:
        whole = sys.stdout is None or getattr(sys.stdout, "closed", False)
    try:
        sys.stderr.flush()
    except Exception:
        pass
    return whole


# Plain scripts.


REHEARSALS = 30  # the interpreter specialises code that has run some 8 times
SAMPLE = b"".join(b"HTTP_SAMPLE_%d=%s\0" % (i, b"x" * i) for i in range(1, 40, 3))


cut = _operator.methodcaller("split", b"=", 1)


class Script:
    def __init__(self, code, codes):
        self.code = code
        self.main = type(sys)("__main__")
        self.main.__dict__.update(__file__=FILE, __loader__=SourceFileLoader("__main__", FILE), __builtins__=builtins, __cached__=None)
        self.said, self.say = os.pipe()  # of the forks: "m", out of memory; "w", it has waited
        os.set_blocking(self.said, False)
        self.refuse = make_refuse()
        table = getattr(os.environ, "_data", None)
        if self.refuse is not None and type(table) is dict:
            self.variables = table.update  # nobody is started who would get them from the C library
        else:
            self.variables = os.environb.update
        if codes:
            compiled = SourceFileLoader.get_code

            def get_code(loader, name):
                return codes.get(loader.path) or compiled(loader, name)

            SourceFileLoader.get_code = get_code

    def rehearse(self):
        """Does what forks do, so that caches of the interpreter are filled
        before they are shared: a fork that fills one copies its page."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        stdout = sys.stdout
        code = compile("import os, sys\nprint(os.environ.get('PATH'), sys.argv)\n", OURS, "exec")
        with open(os.devnull, "w") as sys.stdout:
            for _ in range(REHEARSALS):
                theirs.send(REQUEST.pack(MAGIC, 0, len(SAMPLE), 0, 0) + SAMPLE)
                self.take(ours)
                main = type(sys)("rehearsal")
                exec(code, main.__dict__)
                self.finish(main)
        for pair in SAMPLE[:-1].split(b"\0"):
            del os.environb[cut(pair)[0]]
        sys.stdout = stdout
        if self.refuse is not None:
            self.refuse(0)  # no operation has this number

    def serve(self):
        self.rehearse()
        gc.collect()
        gc.freeze()
        script = sys.modules["__main__"]  # ours goes on
        sys.modules["__main__"] = self.main
        count = 0
        while True:
            count += 1
            self.measured = count % MEASURED == 0
            try:
                pid = os.fork()
            except OSError as error:
                answer(NO_FORK, error.errno)
                os._exit(1)
            if pid == 0:
                self.run()
            _, status = os.waitpid(pid, 0)
            flags = 0
            if status or self.measured:
                flags = self.look_at(status)
            if self.refuse is None and sweep() or os.listdir(".") and not self.empty():
                flags |= LEFT
            # What the request has set on what is shared.
            os.lseek(0, 0, 0)
            os.set_blocking(1, True)
            os.set_blocking(2, True)
            channel.sendall(ANSWER.pack(MAGIC, ENDED, status, flags, 0))

    def look_at(self, status):
        """The flags that come of an end and of what the fork has said; the end
        of the channel is ours."""
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NO_REQUEST:
            try:
                if not channel.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT):
                    os._exit(0)
            except BlockingIOError:
                pass  # it is the script's own
        try:
            said = os.read(self.said, 16)
        except BlockingIOError:
            said = b""
        flags = OUT_OF_MEMORY if b"m" in said and status else 0
        if self.measured:
            flags |= WAITS if b"w" in said else COMPUTES
        return flags

    def empty(self):
        """Removes what the request has left in the working directory."""
        import shutil

        try:
            for entry in list(os.scandir(".")):
                if entry.is_dir(follow_symlinks=False):
                    try:
                        shutil.rmtree(entry.name)
                    except OSError:
                        for folder, _, _ in os.walk(entry.name):
                            os.chmod(folder, 0o700)
                        shutil.rmtree(entry.name)
                else:
                    os.unlink(entry.name)
        except OSError:
            pass
        return not os.listdir(".")

    # From here on it is the fork, where each name, attribute and type that is used for
    # the first time may cost a page: rather few of them than many.

    def run(self):
        """The fork: waits for its request, and becomes the script."""
        code = 1
        try:
            if self.refuse is not None and not self.refuse():
                raise OSError("new processes cannot be refused")
            self.accept()
            if self.measured:
                before = waits()
            gc.enable()
            try:
                if self.code is None:
                    with open(FILE, "rb") as file:
                        self.code = compile(file.read(), FILE, "exec", dont_inherit=True)
                exec(self.code, self.main.__dict__)
                code = 0
            except BaseException as error:
                if isinstance(error, MemoryError):
                    os.write(self.say, b"m")
                code = exit_code(error)
                del error
            if self.measured and waits() > before:
                os.write(self.say, b"w")
            if not self.finish(self.main) and code == 0:
                code = 120  # as the interpreter itself
        except MemoryError:
            os.write(self.say, b"m")
        except BaseException as error:
            exit_code(error)
        finally:
            os._exit(code)

    def accept(self):
        flags, ancillary = self.take(channel)
        if flags:
            (descriptor,) = struct.unpack("i", ancillary[0][2])
            os.dup2(descriptor, 0)
            os.close(descriptor)
            sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        os.close(CHANNEL)

    def take(self, channel):
        """Reads a request and sets its variables: its flags, and what came along."""
        data, ancillary, _, _ = channel.recvmsg(READ >> 2, 64)
        if len(data) < REQUEST.size:
            if not data:
                os._exit(NO_REQUEST)
            data += receive(REQUEST.size - len(data))
        magic, flags, size, _, _ = REQUEST.unpack_from(data)
        if magic != MAGIC:
            os._exit(NO_REQUEST)
        text = data[REQUEST.size :]
        if len(text) < size:
            text += receive(size - len(text))
        if size:
            self.variables(map(cut, text[:-1].split(b"\0")))
        return flags, ancillary

    def finish(self, main):
        """The end of a script, as the interpreter makes it: threads, exit
        functions, what the script's names hold, and streams."""
        threading = sys.modules.get("threading")
        if threading is not None and main is self.main:
            threading._shutdown()
        atexit._run_exitfuncs()
        main.__dict__.clear()
        gc.collect()
        return flush()


# Handlers.


class Context:
    """What a handler of two parameters gets as its second."""

    __slots__ = ("aws_request_id", "function_name", "memory_limit_in_mb", "_deadline")

    def __init__(self, request_id, millis):
        self.aws_request_id = request_id
        self.function_name = NAME
        self.memory_limit_in_mb = int(MEMORY)
        self._deadline = time.monotonic() + millis / 1000

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - time.monotonic()) * 1000))


encode = decode = binascii = None  # what only handlers need, see Handler


def field(name, value):
    """One line of the header block."""
    if not isinstance(name, str):
        raise TypeError("header names are strings, got %s" % type(name).__name__)
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, (int, float)):
        value = str(value)
    elif not isinstance(value, str):
        raise TypeError("header %s: want a string, got %s" % (name, type(value).__name__))
    if "\n" in value or "\r" in value or "\0" in value or "\n" in name or "\r" in name or ":" in name:
        raise ValueError("header %r: %r has a line end in it" % (name, value))
    return "%s: %s\r\n" % (name, value)


def encode_response(reply):
    """An HTTP response of payload format 2.0."""
    status = reply["statusCode"]
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise ValueError("statusCode: want a number from 200 to 599, got %r" % (status,))
    head = "Status: %d\r\n" % status
    typed = False
    headers = reply.get("headers")
    for name in headers or ():
        value = headers[name]
        typed = typed or isinstance(name, str) and name.lower() == "content-type"
        for one in value if isinstance(value, (list, tuple)) else (value,):
            head += field(name, one)
    for cookie in reply.get("cookies") or ():
        head += field("Set-Cookie", cookie)
    body = reply.get("body")
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = binascii.a2b_base64(body) if reply.get("isBase64Encoded") else body.encode()
    elif isinstance(body, (bytes, bytearray, memoryview)):
        body = bytes(body)
    else:
        body = encode(body).encode()
        if not typed:
            head += "Content-Type: application/json\r\n"
    return (head + "\r\n").encode() + body


def encode_reply(reply):
    """What a handler has returned, as the output of a function."""
    if isinstance(reply, dict):
        if "statusCode" in reply:
            return encode_response(reply)
        return encode(reply).encode()
    if isinstance(reply, str):
        # As for every function's output: what looks like JSON is, other text is wrapped.
        return reply.encode() if reply[:1] in ("{", "[") and reply else encode({"result": reply}).encode()
    if isinstance(reply, (bytes, bytearray, memoryview)):
        return b"Content-Type: application/octet-stream\r\n\r\n" + bytes(reply)
    if isinstance(reply, (list, tuple)):
        return encode(reply).encode()
    if hasattr(reply, "__await__"):
        reply.close()
        raise TypeError("the handler is a coroutine function: want one that returns its reply")
    return b"Content-Type: application/json\r\n\r\n" + encode(reply).encode()


class Handler:
    def __init__(self, name):
        global encode, decode, binascii
        import binascii
        import json

        encode = json.JSONEncoder(allow_nan=False).encode
        decode = json.JSONDecoder().scan_once
        self.name = name
        self.call = None  # takes event and request
        self.failed = None  # a text and when, of a file that could not be loaded
        self.forked = False
        os.register_at_fork(after_in_child=self.in_fork)

    def in_fork(self):
        self.forked = True
        os.close(channel.detach())

    def load(self):
        name, parts = None, []
        if FOLDER:
            parts = os.path.relpath(FILE, FOLDER)[:-3].split(os.sep)
        if len(parts) > 1 and all(part.isidentifier() for part in parts):
            name = ".".join(parts)
            __import__(name)
            module = sys.modules[name]
        else:
            name = os.path.splitext(os.path.basename(FILE))[0]
            loader = SourceFileLoader(name, FILE)
            module = type(sys)(name)
            spec = ModuleSpec(name, loader, origin=FILE)
            spec.has_location = True
            module.__dict__.update(__spec__=spec, __loader__=loader, __file__=FILE, __package__="", __builtins__=builtins)
            sys.modules[name] = module
            with open(FILE, "rb") as file:
                code = compile(file.read(), FILE, "exec", dont_inherit=True)
            exec(code, module.__dict__)
        function = getattr(module, self.name, None)
        if not callable(function):
            raise TypeError("%s has no function %s" % (os.path.basename(FILE), self.name))
        if self.parameters(function) > 1:
            self.call = lambda event, millis: function(event, Context(event["requestContext"]["requestId"], millis))
        else:
            self.call = lambda event, millis: function(event)

    def parameters(self, function):
        code = getattr(function, "__code__", None)
        if code is not None and not code.co_flags & 0x0C and not hasattr(function, "__wrapped__"):
            return code.co_argcount
        import inspect

        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            return 2
        return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)

    def serve(self):
        buffer = bytearray(READ)
        view = memoryview(buffer)
        self.count = 0
        while True:
            got = channel.recv_into(buffer)
            if got == 0:
                os._exit(0)
            if got < REQUEST.size:
                rest = receive(REQUEST.size - got)
                view[got : REQUEST.size] = rest
                got = REQUEST.size
            magic, flags, size, millis, length = REQUEST.unpack_from(buffer)
            if magic != MAGIC:
                os._exit(1)
            at = REQUEST.size
            text = bytes(view[at : min(got, at + size)])
            if len(text) < size:
                text += receive(size - len(text))
                got = at + size
            here = bytes(view[at + size : got]) if got > at + size else b""
            body = self.body(here, length, flags & STREAMED)
            if body is None:
                answer(FAILED, 1, OUT_OF_MEMORY | RETIRE)
                continue
            self.request(text, body, millis)

    def body(self, here, length, streamed):
        """The body of a request, of which here is the start; None: there is no
        memory for it. Everything of it is read."""
        if not streamed and len(here) == length:
            return here
        buffer = bytearray(READ)
        parts, left, more = [], length, streamed
        while True:
            if left == 0:
                if not more:
                    break
                head = b""
                while len(head) < PART.size:
                    if not here:
                        here = bytes(receive(PART.size - len(head)))
                    head, here = head + here[: PART.size - len(head)], here[PART.size - len(head) :]
                (left,) = PART.unpack(head)
                more = left > 0
                continue
            if here:
                part, here = here[:left], here[left:]
            else:
                n = channel.recv_into(buffer, min(left, READ))
                if n == 0:
                    os._exit(0)
                part = memoryview(buffer)[:n]
            left -= len(part)
            try:
                if parts is not None:
                    parts.append(bytes(part))
            except MemoryError:
                parts = None
        try:
            return None if parts is None else b"".join(parts)
        except MemoryError:
            return None

    def request(self, text, body, millis):
        """One request: exactly one answer."""
        flags, status, payload = 0, 0, None
        self.count += 1
        measured = self.count % MEASURED == 0
        if measured:
            before = waits()
        try:
            if self.call is None:
                self.load_once()
            event, _ = decode(str(text, "utf-8"), 0)
            if body:
                try:
                    event["body"] = str(body, "utf-8")
                except UnicodeDecodeError:
                    event["body"] = binascii.b2a_base64(body, newline=False).decode("ascii")
                    event["isBase64Encoded"] = True
                body = None
            reply = self.call(event, millis)
            if self.forked:
                os._exit(0 if flush() else 120)
            payload = encode_reply(reply)
        except BaseException as error:
            if isinstance(error, MemoryError):
                flags |= OUT_OF_MEMORY | RETIRE
            elif isinstance(error, SystemExit):
                flags |= RETIRE
            status = exit_code(error)
            del error
            if self.forked:
                flush()
                os._exit(status)
            if self.call is None and (self.failed is None or time.monotonic() - self.failed > FAILED_FOR):
                flags |= RETIRE
        flush()
        if measured:
            flags |= WAITS if waits() > before else COMPUTES
        if sweep():
            flags |= LEFT
        if payload is None:
            answer(FAILED, status, flags)
            return
        try:
            answer(ANSWERED, 0, flags, len(payload), payload)
        except MemoryError:
            answer(ANSWERED, 0, flags | RETIRE, len(payload))
            channel.sendall(payload)

    def load_once(self):
        """Loads the file; one that cannot be loaded fails for a while without
        being tried again."""
        if self.failed is not None:
            raise self.error
        try:
            self.load()
        except Exception as error:
            self.failed, self.error = time.monotonic(), error
            raise


def main():
    answer(HELLO)
    magic, size, space = CONFIG.unpack(receive(CONFIG.size))
    if magic != MAGIC:
        sys.exit("the channel begins with %#x" % magic)
    for pair in bytes(receive(size)).split(b"\0")[:-1]:
        name, _, value = pair.partition(b"=")
        os.environb[name] = value
    if space:
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    gc.disable()
    handler, code, codes, standard = look()
    sys.argv = [FILE]
    if handler:
        handler = Handler(handler)
        set_path()
        forget(own_names())
        refuse = make_refuse()
        if refuse is not None:
            refuse()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)
        gc.enable()
        answer(READY, flags=HANDLER)
        handler.serve()
    names = own_names()
    for module in sorted(standard):
        if module.partition(".")[0] not in NOT_AHEAD and module.partition(".")[0] not in names:
            try:
                __import__(module)
            except BaseException:
                pass  # the script says it
    set_path()
    forget(names)
    script = Script(code, codes)
    answer(READY)
    script.serve()


main()
