package convsearch.lucene;

import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Paths;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.document.BinaryDocValuesField;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.FieldType;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.StringField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexOptions;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;

/** Writes an index with the fields of Anserini's DefaultLuceneDocumentGenerator. */
public final class IndexMaker implements Closeable {
  private static final int BATCHES_WAITING = 4;

  static {
    GoldSearch.quiet();
  }

  private final IndexWriter writer;
  private final ThreadPoolExecutor pool;
  private final AtomicReference<Throwable> failure = new AtomicReference<>();
  private final FieldType words = new FieldType();

  /** bufferMb: memory for passages that are not yet on disk. */
  public IndexMaker(String folder, Analyzer analyzer, int threads, int bufferMb)
      throws IOException {
    IndexWriterConfig config = new IndexWriterConfig(analyzer);
    config.setOpenMode(IndexWriterConfig.OpenMode.CREATE);
    config.setSimilarity(new BM25Similarity());
    config.setRAMBufferSizeMB(bufferMb);
    writer = new IndexWriter(FSDirectory.open(Paths.get(folder)), config);
    words.setIndexOptions(IndexOptions.DOCS_AND_FREQS);
    words.freeze();
    pool =
        new ThreadPoolExecutor(
            threads,
            threads,
            0,
            TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(BATCHES_WAITING),
            new ThreadPoolExecutor.CallerRunsPolicy());
  }

  /** Frames of id, contents and raw of each passage; returns before they are indexed. */
  public void add(byte[] passages) throws IOException {
    check();
    pool.execute(
        () -> {
          try {
            List<String> fields = Frames.read(passages);
            for (int i = 0; i < fields.size(); i += 3) {
              add(fields.get(i), fields.get(i + 1), fields.get(i + 2));
            }
          } catch (IOException | RuntimeException | Error error) {
            failure.compareAndSet(null, error);
          }
        });
  }

  private void add(String id, String contents, String raw) throws IOException {
    Document document = new Document();
    document.add(new StringField(Ids.ID, id, Field.Store.YES));
    document.add(new BinaryDocValuesField(Ids.ID, new BytesRef(id)));
    document.add(new StoredField("raw", raw));
    document.add(new Field(GoldSearch.CONTENTS, contents, words));
    writer.addDocument(document);
  }

  /** Waits for what was added and makes it the index; returns how many passages hold a word. */
  public int finish() throws IOException, InterruptedException {
    pool.shutdown();
    pool.awaitTermination(Long.MAX_VALUE, TimeUnit.SECONDS);
    check();
    writer.commit();
    try (DirectoryReader reader = DirectoryReader.open(writer)) {
      return reader.getDocCount(GoldSearch.CONTENTS);
    } finally {
      writer.close();
    }
  }

  /** After an error: drops what was added. */
  @Override
  public void close() throws IOException {
    pool.shutdownNow();
    writer.rollback();
  }

  private void check() throws IOException {
    Throwable error = failure.get();
    if (error != null) {
      throw new IOException(error.toString(), error);
    }
  }
}
