package convsearch.lucene;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;

/** What an analyzer makes of texts. */
public final class Terms {
  private Terms() {}

  static List<String> of(Analyzer analyzer, String field, String text) throws IOException {
    List<String> terms = new ArrayList<>();
    try (TokenStream stream = analyzer.tokenStream(field, text)) {
      CharTermAttribute term = stream.addAttribute(CharTermAttribute.class);
      stream.reset();
      while (stream.incrementToken()) {
        terms.add(term.toString());
      }
      stream.end();
    }
    return terms;
  }

  /** Terms of each text, joined by line feeds (no term holds one); in and out as Frames. */
  public static byte[] analyze(Analyzer analyzer, byte[] texts) throws IOException {
    Frames out = new Frames();
    for (String text : Frames.read(texts)) {
      out.text(String.join("\n", of(analyzer, GoldSearch.CONTENTS, text)));
    }
    return out.bytes();
  }
}
