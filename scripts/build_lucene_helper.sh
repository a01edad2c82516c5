#!/usr/bin/env bash
# Compiles the Java of the Lucene engine into retriever_server/lucene/helper.jar, which is committed
# because a Java without a compiler is enough to run it. Needs a JDK of 17 or newer and the Anserini
# jar. The class files are for Java 17, so that the JDK of a stable distribution can make them.
#
#   scripts/build_lucene_helper.sh [ANSERINI_JAR]
#
# PYTHON  the interpreter whose pyserini holds the jar (default: python3)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../retriever_server/lucene"
PYTHON=${PYTHON:-python3}
JAR=${1:-$("$PYTHON" -c 'from importlib.metadata import distribution as d; print(*d("pyserini").locate_file("pyserini/resources/jars").glob("anserini-*-fatjar.jar"))')}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

javac --release 17 -Xlint:all,-processing,-classfile -Werror -proc:none -cp "$JAR" -d "$WORK" java/convsearch/lucene/*.java
mkdir -p "$WORK/META-INF"
cat java/convsearch/lucene/*.java | sha256sum | cut -d' ' -f1 > "$WORK/META-INF/source.sha256"
rm -f helper.jar
(cd "$WORK" && "$PYTHON" - <<'PY') > helper.jar
import io, pathlib, sys, zipfile  # the same bytes for the same source: fixed order and dates

out = io.BytesIO()
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as jar:
    for path in sorted(p for p in pathlib.Path().rglob("*") if p.is_file()):
        jar.writestr(zipfile.ZipInfo(path.as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED)
sys.stdout.buffer.write(out.getvalue())
PY
