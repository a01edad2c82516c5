package convsearch.lucene;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * Texts as bytes: each a big-endian length of four bytes and UTF-8, length -1 for none. One array
 * crosses the border between Python and Java faster than many strings, and without JNI's own
 * ("modified") UTF-8, which has another form for characters beyond 16 bits.
 */
final class Frames {
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  static List<String> read(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    List<String> texts = new ArrayList<>();
    while (in.hasRemaining()) {
      int length = in.getInt();
      texts.add(new String(bytes, in.position(), length, StandardCharsets.UTF_8));
      in.position(in.position() + length);
    }
    return texts;
  }

  Frames number(int value) {
    out.writeBytes(ByteBuffer.allocate(4).putInt(value).array());
    return this;
  }

  Frames text(String text) {
    if (text == null) {
      return number(-1);
    }
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return text(bytes, 0, bytes.length);
  }

  Frames text(byte[] bytes, int offset, int length) {
    number(length);
    out.write(bytes, offset, length);
    return this;
  }

  byte[] bytes() {
    return out.toByteArray();
  }
}
