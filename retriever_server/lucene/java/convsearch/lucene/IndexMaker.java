package convsearch.lucene;

import java.io.Closeable;
import java.io.EOFException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
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
import org.apache.lucene.index.CorruptIndexException;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexFormatTooNewException;
import org.apache.lucene.index.IndexFormatTooOldException;
import org.apache.lucene.index.IndexOptions;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.SegmentInfos;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;

/**
 * Writes an index with the fields of Anserini's DefaultLuceneDocumentGenerator. Each commit says how
 * many passages it holds, those at the front of the corpus, so that a build that was killed goes on
 * behind them. One thread calls it.
 */
public final class IndexMaker implements Closeable {
  private static final int BATCHES_WAITING = 4;
  private static final String PASSAGES = "passages";

  static {
    GoldSearch.quiet();
  }

  private final IndexWriter writer;
  private final ThreadPoolExecutor pool;
  private final AtomicReference<Throwable> failure = new AtomicReference<>();
  private final FieldType words = new FieldType();
  private final int found;
  private List<Future<?>> handedOver = new ArrayList<>();

  /**
   * Takes up what the last commit of an earlier build holds; a folder without one, or with one that
   * cannot be read, is emptied. bufferMb: memory for passages that are not yet on disk.
   */
  public IndexMaker(String folder, Analyzer analyzer, int threads, int bufferMb)
      throws IOException {
    Directory directory = FSDirectory.open(Paths.get(folder));
    int committed = committed(directory);
    if (committed < 0) {
      for (String file : directory.listAll()) {
        directory.deleteFile(file);
      }
    }
    found = Math.max(committed, 0);
    IndexWriterConfig config = new IndexWriterConfig(analyzer);
    config.setOpenMode(IndexWriterConfig.OpenMode.CREATE_OR_APPEND);
    config.setSimilarity(new BM25Similarity());
    config.setRAMBufferSizeMB(bufferMb);
    writer = new IndexWriter(directory, config);
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

  /** Passages of the last commit, -1 where there is none that can be read. */
  private static int committed(Directory directory) throws IOException {
    try {
      SegmentInfos commit = SegmentInfos.readLatestCommit(directory);
      int passages = Integer.parseInt(commit.getUserData().getOrDefault(PASSAGES, "-1"));
      return passages == commit.totalMaxDoc() ? passages : -1;
    } catch (FileNotFoundException // of which IndexNotFoundException is one
        | CorruptIndexException
        | IndexFormatTooOldException
        | IndexFormatTooNewException
        | EOFException
        | NoSuchFileException
        | NumberFormatException error) {
      return -1;
    }
  }

  /** Passages that an earlier build has committed: the first ones of its corpus. */
  public int found() {
    return found;
  }

  /** Frames of id, contents and raw of each passage; returns before they are indexed. */
  public void add(byte[] passages) throws IOException {
    check();
    handedOver.add(
        pool.submit(
            () -> {
              try {
                List<String> fields = Frames.read(passages);
                for (int i = 0; i < fields.size(); i += 3) {
                  add(fields.get(i), fields.get(i + 1), fields.get(i + 2));
                }
              } catch (IOException | RuntimeException | Error error) {
                failure.compareAndSet(null, error);
              }
            }));
  }

  private void add(String id, String contents, String raw) throws IOException {
    Document document = new Document();
    document.add(new StringField(Ids.ID, id, Field.Store.YES));
    document.add(new BinaryDocValuesField(Ids.ID, new BytesRef(id)));
    document.add(new StoredField("raw", raw));
    document.add(new Field(GoldSearch.CONTENTS, contents, words));
    writer.addDocument(document);
  }

  /** Waits for what was added and makes it outlive this process. passages: of the whole index. */
  public void commit(int passages) throws IOException, InterruptedException {
    List<Future<?>> waiting = handedOver;
    handedOver = new ArrayList<>();
    for (Future<?> batch : waiting) {
      try {
        batch.get();
      } catch (ExecutionException error) {
        failure.compareAndSet(null, error.getCause());
      }
    }
    check();
    if (writer.getDocStats().numDocs != passages) {
      throw new IOException(
          "the index holds " + writer.getDocStats().numDocs + " passages instead of " + passages);
    }
    writer.setLiveCommitData(Map.of(PASSAGES, Integer.toString(passages)).entrySet());
    writer.commit();
  }

  /** The last commit; returns how many passages hold a word. */
  public int finish(int passages) throws IOException, InterruptedException {
    commit(passages);
    pool.shutdown();
    try (DirectoryReader reader = DirectoryReader.open(writer)) {
      return reader.getDocCount(GoldSearch.CONTENTS);
    } finally {
      writer.close();
    }
  }

  /** After an error: drops what was added since the last commit. */
  @Override
  public void close() throws IOException {
    pool.getQueue().clear();
    pool.shutdown();
    try {
      pool.awaitTermination(Long.MAX_VALUE, TimeUnit.SECONDS); // an interrupt would close their files
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    } finally {
      writer.rollback();
    }
  }

  private void check() throws IOException {
    Throwable error = failure.get();
    if (error != null) {
      throw new IOException(error.toString(), error);
    }
  }
}
