package convsearch.lucene;

import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.BoostQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.search.Weight;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;

/** BM25 over an index in Anserini's layout: ranks of gold passages, lists, stored passages. */
public final class GoldSearch implements Closeable {
  static final String CONTENTS = "contents";
  private static final String RAW = "raw";
  private static final Set<String> STORED = Set.of(RAW, CONTENTS);
  private static final Logger LUCENE = Logger.getLogger("org.apache.lucene");

  private final DirectoryReader reader;
  private final IndexSearcher searcher;
  private final Analyzer analyzer;
  private final ExecutorService pool;
  private final int threads;

  static {
    quiet();
    IndexSearcher.setMaxClauseCount(Integer.MAX_VALUE); // the service limits the length of queries
  }

  /** Lucene tells at every start which file access it chose. */
  static void quiet() {
    LUCENE.setLevel(Level.SEVERE);
  }

  /** analyzer: Anserini's; passed in because its classes need a newer compiler than ours. */
  public GoldSearch(String folder, Analyzer analyzer, float k1, float b, int threads)
      throws IOException {
    this.reader = DirectoryReader.open(FSDirectory.open(Paths.get(folder)));
    this.searcher = new IndexSearcher(reader);
    this.searcher.setSimilarity(new BM25Similarity(k1, b));
    this.searcher.setQueryCache(null);
    this.analyzer = analyzer;
    this.threads = threads;
    this.pool =
        Executors.newFixedThreadPool(
            threads,
            work -> {
              Thread thread = new Thread(work, "gold-search");
              thread.setDaemon(true);
              return thread;
            });
  }

  /** Number of passages. */
  public int size() {
    return reader.numDocs();
  }

  /** Whether passages can be looked up by id and have words to search. */
  public boolean fits() throws IOException {
    for (LeafReaderContext leaf : reader.leaves()) {
      if (leaf.reader().terms(Ids.ID) != null && leaf.reader().terms(CONTENTS) != null) {
        return true;
      }
    }
    return false;
  }

  /** Those of these ids that no passage has, in their order; in and out as Frames. */
  public byte[] missing(byte[] ids) throws IOException {
    Frames out = new Frames();
    for (String id : Frames.read(ids)) {
      if (find(id) == null) {
        out.text(id);
      }
    }
    return out.bytes();
  }

  /**
   * Rank of the best gold passage of each query, from 1; 0 where it is not among the topk.
   * golds: the ids of all queries in a row; numGolds: how many of them belong to each query.
   */
  public int[] ranks(byte[] queries, byte[] golds, int[] numGolds, int topk) throws Exception {
    List<String> texts = Frames.read(queries);
    List<String> ids = Frames.read(golds);
    int[] starts = new int[numGolds.length + 1];
    for (int i = 0; i < numGolds.length; i++) {
      starts[i + 1] = starts[i] + numGolds[i];
    }
    int[] ranks = new int[texts.size()];
    each(
        ranks.length,
        i -> ranks[i] = rank(texts.get(i), ids.subList(starts[i], starts[i + 1]), topk));
    return ranks;
  }

  /** For each query the number of hits, then score (bits of a float) and id of each. */
  public byte[] search(byte[] queries, int topk) throws Exception {
    List<String> texts = Frames.read(queries);
    List<List<BestHits.Hit>> lists = new ArrayList<>();
    for (int i = 0; i < texts.size(); i++) {
      lists.add(List.of());
    }
    each(texts.size(), i -> lists.set(i, best(texts.get(i), topk)));
    Frames out = new Frames();
    for (List<BestHits.Hit> hits : lists) {
      out.number(hits.size());
      for (BestHits.Hit hit : hits) {
        out.number(Float.floatToIntBits(hit.score));
        out.text(hit.id.bytes, hit.id.offset, hit.id.length);
      }
    }
    return out.bytes();
  }

  /** The stored fields "raw" and "contents" of each passage, as Frames. */
  public byte[] stored(byte[] ids) throws IOException {
    Frames out = new Frames();
    for (String id : Frames.read(ids)) {
      int[] place = find(id);
      LeafReaderContext leaf = reader.leaves().get(place[0]);
      Document fields = leaf.reader().storedFields().document(place[1], STORED);
      out.text(fields.get(RAW)).text(fields.get(CONTENTS));
    }
    return out.bytes();
  }

  @Override
  public void close() throws IOException {
    pool.shutdown();
    reader.close();
  }

  /** Segment and number within it, null where no passage has this id. */
  private int[] find(String id) throws IOException {
    BytesRef bytes = new BytesRef(id);
    for (LeafReaderContext leaf : reader.leaves()) {
      int doc = Ids.find(leaf.reader(), bytes);
      if (doc >= 0) {
        return new int[] {leaf.ord, doc};
      }
    }
    return null;
  }

  /** A word that occurs n times weighs n times as much; null where the query has no word. */
  private Query parse(String text) throws IOException {
    Map<String, Integer> counts = new TreeMap<>();
    for (String term : Terms.of(analyzer, CONTENTS, text)) {
      counts.merge(term, 1, Integer::sum);
    }
    BooleanQuery.Builder query = new BooleanQuery.Builder();
    counts.forEach(
        (term, count) ->
            query.add(
                new BoostQuery(new TermQuery(new Term(CONTENTS, term)), count),
                BooleanClause.Occur.SHOULD));
    return counts.isEmpty() ? null : searcher.rewrite(query.build());
  }

  private int rank(String text, List<String> golds, int topk) throws IOException {
    Query query = parse(text);
    BestHits.Hit gold = query == null ? null : bestOf(query, golds);
    if (gold == null) {
      return 0;
    }
    BetterThan better = new BetterThan(gold, topk);
    try {
      searcher.search(query, better);
    } catch (BetterThan.Enough end) {
      return 0;
    }
    return better.count() + 1;
  }

  /** The gold passage that comes first, null where the query has no word of any. */
  private BestHits.Hit bestOf(Query query, List<String> golds) throws IOException {
    Weight weight = searcher.createWeight(query, ScoreMode.COMPLETE, 1);
    BestHits.Hit best = null;
    for (String id : golds) {
      int[] place = find(id);
      Scorer scorer = weight.scorer(reader.leaves().get(place[0]));
      if (scorer != null && scorer.iterator().advance(place[1]) == place[1]) {
        BestHits.Hit hit = new BestHits.Hit(scorer.score(), new BytesRef(id));
        best = best == null || hit.compareTo(best) < 0 ? hit : best;
      }
    }
    return best;
  }

  private List<BestHits.Hit> best(String text, int topk) throws IOException {
    Query query = parse(text);
    if (query == null) {
      return List.of();
    }
    BestHits hits = new BestHits(topk);
    searcher.search(query, hits);
    return hits.sorted();
  }

  private interface Job {
    void run(int i) throws IOException;
  }

  /** Runs the jobs 0 to n - 1 on the pool; the first error ends the call. */
  private void each(int n, Job job) throws Exception {
    AtomicInteger next = new AtomicInteger();
    List<Future<?>> workers = new ArrayList<>();
    for (int t = 0; t < Math.min(threads, n); t++) {
      workers.add(
          pool.submit(
              () -> {
                for (int i = next.getAndIncrement(); i < n; i = next.getAndIncrement()) {
                  job.run(i);
                }
                return null;
              }));
    }
    try {
      for (Future<?> worker : workers) {
        worker.get();
      }
    } catch (ExecutionException error) {
      next.set(n);
      throw new IOException(error.getCause().toString(), error.getCause());
    }
  }
}
