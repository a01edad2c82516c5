package convsearch.lucene;

import java.io.IOException;
import java.util.Set;
import org.apache.lucene.index.BinaryDocValues;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.PostingsEnum;
import org.apache.lucene.index.SortedDocValues;
import org.apache.lucene.index.StoredFields;
import org.apache.lucene.index.TermsEnum;
import org.apache.lucene.util.Bits;
import org.apache.lucene.util.BytesRef;

/**
 * The doc_ids of one segment. One thread, passages in ascending order. The order of bytes in UTF-8
 * is the order of code points, which is also that of strings in Python.
 */
final class Ids {
  static final String ID = "id";
  private static final Set<String> ONLY_ID = Set.of(ID);

  private final BinaryDocValues binary;
  private final SortedDocValues sorted;
  private final StoredFields stored;

  Ids(LeafReader leaf) throws IOException {
    binary = leaf.getBinaryDocValues(ID);
    sorted = binary == null ? leaf.getSortedDocValues(ID) : null;
    stored = leaf.storedFields();
  }

  /** A copy that the caller may keep. */
  BytesRef of(int doc) throws IOException {
    if (binary != null && binary.advanceExact(doc)) {
      return BytesRef.deepCopyOf(binary.binaryValue());
    }
    if (sorted != null && sorted.advanceExact(doc)) {
      return BytesRef.deepCopyOf(sorted.lookupOrd(sorted.ordValue()));
    }
    String id = stored.document(doc, ONLY_ID).get(ID);
    return new BytesRef(id == null ? "" : id);
  }

  /** Number of the passage with this id within the segment, -1 where there is none. */
  static int find(LeafReader leaf, BytesRef id) throws IOException {
    org.apache.lucene.index.Terms terms = leaf.terms(ID);
    if (terms == null) {
      return -1;
    }
    TermsEnum cursor = terms.iterator();
    if (!cursor.seekExact(id)) {
      return -1;
    }
    Bits live = leaf.getLiveDocs();
    PostingsEnum docs = cursor.postings(null, PostingsEnum.NONE);
    int doc = docs.nextDoc();
    while (doc != PostingsEnum.NO_MORE_DOCS && live != null && !live.get(doc)) {
      doc = docs.nextDoc();
    }
    return doc == PostingsEnum.NO_MORE_DOCS ? -1 : doc;
  }
}
