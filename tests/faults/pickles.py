"""Pickles that want to do harm, built by script: what a `.bin` may carry.

Every callable that scanners of pickles were got around with, in every opcode that can
call; programs that ask for memory or time; ids and tensors of wrong form. Those that
have a payload touch a file or connect to a port when somebody runs them, which
`tests/faults/test_hostile_checkpoints.py` sees happen with Python's own unpickler.

Source: CPython Lib/pickletools.py (opcodes); the names are those of the public
advisories on torch.load, picklescan and fickling.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.converters.checkpoints import (
    name,
    number,
    tensor_pickle,
    text,
)
from tests.faults.small import small_pickle

PROTO = b"\x80\x04"
TENSOR = tensor_pickle("0", "F16", (2, 3))


@dataclass(frozen=True, slots=True)
class Trap:
    """What tells that something ran: a file that must not appear, a silent port."""

    canary: str
    port: int


# Name -> arguments; "{touch}" is a shell command, "{code}" Python, "{file}" a path.
_CALLABLES: dict[tuple[str, str], tuple[str, ...]] = {
    ("os", "system"): ("{touch}",),
    ("posix", "system"): ("{touch}",),
    ("builtins", "exec"): ("{code}",),
    ("nt", "system"): ("{touch}",),
    ("os", "popen"): ("{touch}",),
    ("os", "execvp"): ("touch",),
    ("os", "remove"): ("{file}",),
    ("os", "spawnlp"): ("x",),
    ("subprocess", "Popen"): ("{touch}",),
    ("subprocess", "getoutput"): ("{touch}",),
    ("subprocess", "check_output"): ("{touch}",),
    ("commands", "getoutput"): ("{touch}",),
    ("builtins", "eval"): ("{code}",),
    ("builtins", "compile"): ("{code}", "x", "exec"),
    ("builtins", "open"): ("{file}", "w"),
    ("builtins", "getattr"): ("x", "__class__"),
    ("builtins", "setattr"): ("x", "y", "z"),
    ("builtins", "__import__"): ("antigravity",),
    ("builtins", "breakpoint"): (),
    ("builtins", "globals"): (),
    ("builtins", "apply"): ("x",),
    ("__builtin__", "eval"): ("{code}",),
    ("__builtin__", "file"): ("{file}", "w"),
    ("io", "open"): ("{file}", "w"),
    ("_io", "FileIO"): ("{file}", "w"),
    ("codecs", "open"): ("{file}", "w"),
    ("codecs", "encode"): ("x", "rot13"),
    ("pathlib", "Path.touch"): ("{file}",),
    ("importlib", "import_module"): ("antigravity",),
    ("importlib.util", "spec_from_file_location"): ("x", "modeling_llama.py"),
    ("runpy", "run_path"): ("modeling_llama.py",),
    ("runpy", "_run_code"): ("{code}",),
    ("imp", "load_source"): ("x", "modeling_llama.py"),
    ("pkgutil", "resolve_name"): ("os:system",),
    ("operator", "attrgetter"): ("system",),
    ("operator", "methodcaller"): ("system", "{touch}"),
    ("_operator", "attrgetter"): ("system",),
    ("functools", "partial"): ("x",),
    ("functools", "reduce"): ("x", "y"),
    ("pip", "main"): ("install",),
    ("pip._internal", "main"): ("install",),
    ("pickle", "loads"): ("cos\nsystem\n(S'{touch}'\ntR.",),
    ("_pickle", "loads"): ("x",),
    ("pickle", "Unpickler"): ("x",),
    ("cloudpickle", "loads"): ("x",),
    ("joblib", "load"): ("{file}",),
    ("dill", "loads"): ("x",),
    ("marshal", "loads"): ("x",),
    ("shelve", "open"): ("{file}",),
    ("types", "FunctionType"): ("x",),
    ("types", "CodeType"): ("x",),
    ("torch", "load"): ("{file}",),
    ("torch.storage", "_load_from_bytes"): ("x",),
    ("torch.hub", "load"): ("x", "y"),
    ("torch.jit", "load"): ("{file}",),
    ("torch.utils._config_module", "load_config"): ("x",),
    ("torch._utils", "_rebuild_tensor"): ("x",),
    ("torch._utils", "_rebuild_wrapper_subclass"): ("x",),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"): ("x",),
    ("torch._utils", "_import_dotted_name"): ("os.system",),
    ("torch.serialization", "load"): ("{file}",),
    ("torch._inductor.codecache", "compile_file"): ("x",),
    ("torch.fx.experimental.symbolic_shapes.ShapeEnv", "evaluate_guards_expression"): (
        "{code}",
    ),
    ("collections", "OrderedDict.fromkeys"): ("x",),
    ("collections", "namedtuple"): ("x", "y"),
    ("collections", "_sys.modules"): ("x",),
    ("numpy.core.multiarray", "_reconstruct"): ("x",),
    ("numpy.testing._private.utils", "runstring"): ("{code}", "x"),
    ("numpy.f2py.crackfortran", "myeval"): ("{code}",),
    ("numpy", "load"): ("{file}",),
    ("shutil", "rmtree"): ("{file}",),
    ("webbrowser", "open"): ("http://127.0.0.1:{port}/",),
    ("urllib.request", "urlopen"): ("http://127.0.0.1:{port}/",),
    ("http.client", "HTTPConnection"): ("127.0.0.1:{port}",),
    ("socket", "create_connection"): ("127.0.0.1", "{port}"),
    ("smtplib", "SMTP"): ("127.0.0.1", "{port}"),
    ("ftplib", "FTP"): ("127.0.0.1",),
    ("ssl", "get_server_certificate"): ("127.0.0.1",),
    ("ctypes", "CDLL"): ("libc.so.6",),
    ("ctypes.util", "find_library"): ("c",),
    ("_ctypes", "dlopen"): ("libc.so.6",),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"): ("{touch}",),
    ("asyncio", "run"): ("x",),
    ("bdb", "Bdb.run"): ("{code}",),
    ("pdb", "run"): ("{code}",),
    ("profile", "run"): ("{code}",),
    ("cProfile", "run"): ("{code}",),
    ("trace", "Trace.run"): ("{code}",),
    ("timeit", "timeit"): ("{code}",),
    ("timeit", "main"): (),
    ("doctest", "debug_script"): ("{code}",),
    ("code", "interact"): (),
    ("code", "InteractiveInterpreter.runcode"): ("{code}",),
    ("pty", "spawn"): ("sh",),
    ("platform", "popen"): ("{touch}",),
    ("distutils.file_util", "write_file"): ("{file}", "x"),
    ("lib2to3.pgen2.pgen", "ParserGenerator.make_label"): ("x", "y"),
    ("lib2to3.pgen2.grammar", "Grammar.loads"): ("x",),
    ("idlelib.pyshell", "ModifiedInterpreter.runcommand"): ("{code}",),
    ("idlelib.run", "Executive.runcode"): ("{code}",),
    ("ensurepip", "_run_pip"): ("install",),
    ("venv", "create"): ("{file}",),
    ("multiprocessing.util", "spawnv_passfds"): ("sh",),
    ("logging.config", "_resolve"): ("os.system",),
    ("logging", "FileHandler"): ("{file}",),
    ("sqlite3", "connect"): ("{file}",),
    ("signal", "raise_signal"): ("9",),
    ("sys", "exit"): ("0",),
    ("gc", "get_objects"): (),
    ("test.support.script_helper", "assert_python_ok"): ("-c", "{code}"),
    ("uuid", "_get_command_stdout"): ("touch", "{file}"),
    ("aifc", "open"): ("{file}", "w"),
    ("tempfile", "mkdtemp"): (),
    ("zipimport", "zipimporter"): ("{file}",),
    ("site", "addsitedir"): ("{file}",),
    ("cgitb", "lookup"): ("x",),
    ("wizard_edge_converters.pickle_values", "_CALLS.update"): ("x",),
}


def malicious_pickles(trap: Trap) -> dict[str, bytes]:
    """Return every pickle by a name that says what it tries."""
    found = dict(_callers(trap))
    for title, data in (*_programs(trap), *_floods(), *_wrong_tensors()):
        assert title not in found
        found[title] = data
    return found


def _callers(trap: Trap) -> Iterator[tuple[str, bytes]]:
    forms = list(_FORMS.items())
    for number_, ((module, attribute), words) in enumerate(_CALLABLES.items()):
        arguments = [_filled(word, trap) for word in words]
        # All forms for the plainest ones, two of them in turn for all others.
        chosen = forms if number_ < 8 else [forms[(number_ + i) % 7] for i in range(2)]
        for form, build in chosen:
            fragment = build(module, attribute, arguments)
            title = f"{module}.{attribute} by {form}"
            # Bare, or as one value among real tensors.
            yield title, PROTO + fragment + b"." if number_ % 2 else inside(fragment)


def _filled(word: str, trap: Trap) -> str:
    return (
        word.replace("{touch}", f"touch '{trap.canary}'")
        .replace("{code}", f"open({trap.canary!r}, 'w')")
        .replace("{file}", trap.canary)
        .replace("{port}", str(trap.port))
    )


def inside(fragment: bytes) -> bytes:
    """Put a program that leaves one value between the tensors of a good state dict."""
    good = small_pickle()
    begin = b"q\x00("
    at = good.index(begin) + len(begin)
    return good[:at] + text("model.extra") + fragment + good[at:]


def _texts(arguments: list[str]) -> bytes:
    return b"".join(map(text, arguments))


def _reduce(module: str, attribute: str, arguments: list[str]) -> bytes:
    return name(module, attribute) + b"(" + _texts(arguments) + b"tR"


def _stack_global(module: str, attribute: str, arguments: list[str]) -> bytes:
    return text(module) + text(attribute) + b"\x93(" + _texts(arguments) + b"tR"


def _memo_global(module: str, attribute: str, arguments: list[str]) -> bytes:
    # The names are put away first and dropped, and fetched from the memo later.
    stored = text(module) + b"q\xf0" + text(attribute) + b"r\xff\xff\xff\x7f\x86"
    fetched = b"h\xf0j\xff\xff\xff\x7f\x93(" + _texts(arguments) + b"tR"
    return b"}" + stored + b"b0" + fetched


def _inst(module: str, attribute: str, arguments: list[str]) -> bytes:
    return b"(" + _texts(arguments) + f"i{module}\n{attribute}\n".encode()


def _obj(module: str, attribute: str, arguments: list[str]) -> bytes:
    return b"(" + name(module, attribute) + _texts(arguments) + b"o"


def _newobj(module: str, attribute: str, arguments: list[str]) -> bytes:
    return name(module, attribute) + b"(" + _texts(arguments) + b"t\x81"


def _newobj_ex(module: str, attribute: str, arguments: list[str]) -> bytes:
    return name(module, attribute) + b"(" + _texts(arguments) + b"t}\x92"


def _build(module: str, attribute: str, arguments: list[str]) -> bytes:
    """Set the state of what a name stands for."""
    return name(module, attribute) + b"(" + _texts(arguments) + b"tb"


def _nested(module: str, attribute: str, arguments: list[str]) -> bytes:
    """Call what a call gave."""
    return (
        _reduce("builtins", "getattr", [module, attribute])
        + b"("
        + (_texts(arguments) + b"tR")
    )


def _as_argument(module: str, attribute: str, arguments: list[str]) -> bytes:
    """Hide the call among the arguments of the one call that is allowed."""
    inner = _reduce(module, attribute, arguments)
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + inner + b"NNNNNtR"


def _as_hooks(module: str, attribute: str, arguments: list[str]) -> bytes:
    """Hide it where a tensor has its hooks."""
    hooks = name("collections", "OrderedDict") + b")R"
    assert TENSOR.endswith(hooks + b"tR")
    return TENSOR[: -len(hooks) - 2] + _reduce(module, attribute, arguments) + b"tR"


def _as_storage(module: str, attribute: str, arguments: list[str]) -> bytes:
    """Hide it in a persistent id."""
    inner = _reduce(module, attribute, arguments)
    return b"(" + text("storage") + inner + text("0") + text("cpu") + number(6) + b"tQ"


_FORMS = {
    "reduce": _reduce,
    "stack-global": _stack_global,
    "memo-global": _memo_global,
    "inst": _inst,
    "obj": _obj,
    "as-hooks": _as_hooks,
    "as-storage": _as_storage,
    "newobj": _newobj,
    "newobj-ex": _newobj_ex,
    "build": _build,
    "nested": _nested,
    "as-argument": _as_argument,
}


class _Attack:
    """Pickles to a shell command, as the standard library would write it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def _programs(trap: Trap) -> Iterator[tuple[str, bytes]]:
    touch = f"touch '{trap.canary}'"
    call = _reduce("os", "system", [touch])
    good = small_pickle()
    for protocol in range(6):
        attack = pickle.dumps({"w": _Attack(touch)}, protocol)
        yield f"pickle.dumps protocol {protocol}", attack
    address = b"(" + text("127.0.0.1") + number(trap.port) + b"t"
    yield (
        "a connection",
        inside(name("socket", "create_connection") + b"(" + address + b"tR"),
    )
    yield "a second pickle behind the end", good + PROTO + call + b"."
    yield "a call whose result is dropped", PROTO + call + b"0" + good[2:]
    yield "a call in a mark that is dropped", PROTO + b"(" + call + b"1" + good[2:]
    yield "a call as the key of a tensor", PROTO + b"}" + call + TENSOR + b"s."
    yield "a call as the state", good[:-1] + call + b"b."
    yield (
        "a state that is a call's arguments",
        inside(name("os", "system") + b"(" + text(touch) + b"tb"),
    )
    yield (
        "setstate of a class",
        inside(
            name("builtins", "object")
            + b")\x81}"
            + text("__setstate__")
            + (name("os", "system") + b"sb" + text(touch) + b"b")
        ),
    )
    yield (
        "slots of a class by a pair",
        inside(name("builtins", "object") + b")\x81N}" + text("a") + b"Ns\x86b"),
    )
    for opcode, size in ((b"\x82", 1), (b"\x83", 2), (b"\x84", 4)):
        yield f"extension of {size} bytes", inside(opcode + b"\x01" + bytes(size - 1))
    yield "a persistent id as text", PROTO + b"P" + touch.encode() + b"\n."
    yield "buffers out of band", inside(b"\x97")
    yield "a buffer made read-only", inside(text("x") + b"\x98")
    yield "a line break in a name", PROTO + b"cos\nsystem\r\n(" + text(touch) + b"tR."
    yield (
        "escapes for a terminal in a name",
        inside(b"c\x1b[2Jos\n\x1b]0;x\x07system\n(" + text(touch) + b"tR"),
    )
    yield "a name of 4000 letters", inside(b"c" + b"o" * 4_000 + b"\nx\n)R")
    yield "a name that is not UTF-8", inside(b"c\xff\xfe\nx\n)R")
    yield "the names of a call from bytes", inside(b"U\x02osU\x06system\x93")
    yield "an escaped string", inside(b"S'\\x6f\\x73'\n" + text("system") + b"\x93")
    yield "unicode escapes", inside(b"V\\u006f\\u0073\n" + text("system") + b"\x93")
    yield "a list of calls", inside(b"](" + call + b"e")
    yield "a set of calls", inside(b"\x8f(" + call + b"\x90")
    yield "a frozen set of calls", inside(b"(" + call + b"\x91")
    yield "dup and call", inside(name("os", "system") + b"2(" + text(touch) + b"tR")


def _floods() -> Iterator[tuple[str, bytes]]:
    many = 1 << 20
    yield "8 bytes that ask for 2 GiB of text", PROTO + b"X\x00\x00\x00\x80x"
    yield "long binput 2^31", PROTO + b"}r\xff\xff\xff\x7f."
    yield "long binget 2^31", PROTO + b"}j\xff\xff\xff\x7f."
    yield "decimal put 10^20", PROTO + b"}p" + b"1" + b"0" * 20 + b"\n."
    for title, opcode, layout, size in (
        ("binbytes 2^31", b"B", "<I", 1 << 31),
        ("binbytes8 2^40", b"\x8e", "<Q", 1 << 40),
        ("bytearray8 2^40", b"\x96", "<Q", 1 << 40),
        ("bytearray8 2^63", b"\x96", "<Q", 1 << 63),
        ("binunicode8 2^40", b"\x8d", "<Q", 1 << 40),
        ("binstring 2^31-1", b"T", "<i", (1 << 31) - 1),
        ("binstring -1", b"T", "<i", -1),
        ("long4 2^31-1", b"\x8b", "<i", (1 << 31) - 1),
        ("long4 -1", b"\x8b", "<i", -1),
        ("frame 2^63", b"\x95", "<Q", 1 << 63),
        ("frame 2^40", b"\x95", "<Q", 1 << 40),
    ):
        yield title, PROTO + opcode + struct.pack(layout, size) + b"x."
    yield "a decimal of a million digits", PROTO + b"I" + b"9" * many + b"\n."
    yield "a long of a million digits", PROTO + b"L" + b"9" * many + b"L\n."
    yield "a tuple in a tuple, a million deep", inside(b")" + b"\x85" * (many // 2))
    yield (
        "a dict in a dict, 100000 deep",
        inside(b"}" + (text("a") + b"}") * 100_000 + b"s" * 100_000),
    )
    yield "marks without end", PROTO + b"(" * (2 * many)
    yield "dicts without end", PROTO + b"}" * (2 * many)
    yield "frames without end", PROTO + (b"\x95" + bytes(8)) * (many // 4)
    yield "a memo without end", PROTO + b"}" + b"\x94" * (2 * many)
    yield "texts without end", PROTO + b"\x8c\x02\xc4\x80" * many
    yield "names without end", PROTO + "c\u0100\n\u0100\n".encode() * (many // 2)
    yield "one tuple of a million", PROTO + b"(" + b"N" * many + b"t."
    yield "a dict that holds itself", PROTO + b"}q\x00" + text("a") + b"h\x00s."
    yield (
        "a tuple that doubles 64 times",
        inside(b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(10, 74))),
    )
    yield "a memo entry of itself", PROTO + b"h\x00q\x00."
    yield "get before put", PROTO + b"h\x05}q\x05."
    yield "a pickle of zeros", bytes(many)
    yield "an empty pickle", b""
    yield "only an end", b"."
    yield "keys in front of a mark", PROTO + b"}" + text("a") + b"(u."
    yield "a state dict that is a list", PROTO + b"]."
    yield "a state dict that is a number", PROTO + number(7) + b"."


def _wrong_tensors() -> Iterator[tuple[str, bytes]]:
    def persistent(*values: bytes) -> bytes:
        return inside(b"(" + b"".join(values) + b"tQ")

    half = name("torch", "HalfStorage")
    word, key, cpu, six = text("storage"), text("0"), text("cpu"), number(6)
    yield "a persistent id of nothing", persistent()
    yield "a persistent id of one", persistent(word)
    yield "a persistent id of six", persistent(word, half, key, cpu, six, six)
    yield (
        "a persistent id of another kind",
        persistent(text("module"), half, key, cpu, six),
    )
    yield "a persistent id with a number as key", persistent(word, half, six, cpu, six)
    yield "a persistent id with a text as length", persistent(word, half, key, cpu, key)
    yield (
        "a persistent id with a truth value",
        persistent(word, half, key, cpu, b"\x88"),
    )
    yield "a persistent id with a text as type", persistent(word, key, key, cpu, six)
    yield "a storage of -1 elements", persistent(word, half, key, cpu, number(-1))
    yield (
        "a storage of 2^2000 elements",
        persistent(word, half, key, cpu, b"\x8a\xfb" + b"\x7f" * 251),
    )
    yield "a storage of a path", inside(tensor_pickle("../../etc/passwd", "F16", (2,)))
    yield "a storage of an absolute path", inside(tensor_pickle("/etc/x", "F16", (2,)))
    yield "a storage of no name", inside(tensor_pickle("", "F16", (2,)))
    yield (
        "a storage of whole numbers",
        inside(TENSOR.replace(b"HalfStorage", b"LongStorage")),
    )
    yield (
        "a storage class of os",
        inside(TENSOR.replace(b"ctorch\nHalfStorage", b"cos\nsystem")),
    )
    for title, shape, changed in (
        ("a stride below zero", (2, 3), {"strides": (-3, 1)}),
        ("an offset below zero", (2, 3), {"offset": -1}),
        ("an offset beyond", (2, 3), {"offset": 1 << 40}),
        ("an offset of 2^200", (2, 3), {"offset": 1 << 200}),
        ("strides beyond", (2, 3), {"strides": (1 << 40, 1)}),
        ("a stride of nothing", (2, 3), {"strides": (0, 0)}),
        ("fewer strides than sizes", (2, 3), {"strides": (1,)}),
        ("a size below zero", (-2, 3), {"length": 6}),
        ("a size of 2^62", (1 << 62,), {"length": 6, "strides": (1,)}),
        ("sizes whose product wraps", (1 << 33, 1 << 31), {"length": 6}),
        ("nine sizes", (1,) * 9, {}),
        ("a length beside the bytes", (2, 3), {"length": 1 << 31}),
    ):
        yield title, inside(tensor_pickle("0", "F16", shape, **changed))
    yield "a key twice", inside(TENSOR + text("model.extra") + TENSOR)
    yield "a key that is a number", PROTO + b"}" + number(1) + TENSOR + b"s."
    yield "a key that is a tuple", PROTO + b"})" + TENSOR + b"s."
    yield "a value without a key", PROTO + b"}(" + text("a") + b"u."
    yield "a value that is a name", inside(name("os", "system"))
    yield "a value that is a dict", inside(b"}")
    yield "a tensor filled like a dict", inside(TENSOR + text("a") + TENSOR + b"s")
    yield (
        "a tensor from a tuple of texts",
        inside(
            name("torch._utils", "_rebuild_tensor_v2") + b"(" + 6 * text("x") + b"tR"
        ),
    )
    yield (
        "a parameter of a parameter of nothing",
        inside(name("torch._utils", "_rebuild_parameter") + b"(NNNtR"),
    )
    yield (
        "an OrderedDict of pairs",
        inside(name("collections", "OrderedDict") + b"(" + text("x") + b"tR"),
    )
