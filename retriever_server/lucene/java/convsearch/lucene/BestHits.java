package convsearch.lucene;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.PriorityQueue;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.Collector;
import org.apache.lucene.search.LeafCollector;
import org.apache.lucene.search.Scorable;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.util.BytesRef;

/**
 * The best passages of one query: score falling, then doc_id ascending. Lucene's own collector of
 * top documents breaks ties by the order of indexing, so what ties with the last place is decided
 * by id here while collecting.
 */
final class BestHits implements Collector {
  /** One passage of the list. */
  static final class Hit implements Comparable<Hit> {
    final float score;
    final BytesRef id;

    Hit(float score, BytesRef id) {
      this.score = score;
      this.id = id;
    }

    /** Better hits come first. */
    @Override
    public int compareTo(Hit other) {
      int byScore = Float.compare(other.score, score);
      return byScore != 0 ? byScore : id.compareTo(other.id);
    }
  }

  private final int topk;
  private final PriorityQueue<Hit> worstFirst = new PriorityQueue<>((a, b) -> b.compareTo(a));

  BestHits(int topk) {
    this.topk = topk;
  }

  List<Hit> sorted() {
    List<Hit> hits = new ArrayList<>(worstFirst);
    hits.sort(null);
    return hits;
  }

  @Override
  public ScoreMode scoreMode() {
    return ScoreMode.TOP_SCORES;
  }

  @Override
  public LeafCollector getLeafCollector(LeafReaderContext context) throws IOException {
    Ids ids = new Ids(context.reader());
    return new LeafCollector() {
      private Scorable scorer;

      @Override
      public void setScorer(Scorable scorer) throws IOException {
        this.scorer = scorer;
        prune();
      }

      @Override
      public void collect(int doc) throws IOException {
        float score = scorer.score();
        boolean full = worstFirst.size() == topk;
        if (full && score < worstFirst.peek().score) {
          return;
        }
        Hit hit = new Hit(score, ids.of(doc));
        if (full) {
          if (hit.compareTo(worstFirst.peek()) >= 0) {
            return;
          }
          worstFirst.poll();
        }
        worstFirst.add(hit);
        prune();
      }

      /** Passages that tie with the last place still come. */
      private void prune() throws IOException {
        if (worstFirst.size() == topk) {
          scorer.setMinCompetitiveScore(worstFirst.peek().score);
        }
      }
    };
  }
}
