package convsearch.lucene;

import java.io.IOException;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.Collector;
import org.apache.lucene.search.LeafCollector;
import org.apache.lucene.search.Scorable;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.util.BytesRef;

/**
 * Counts the passages that come before one whose score is known. The score is the bar from the
 * first passage on, so Lucene skips all blocks that cannot reach it; nothing is put into order.
 */
final class BetterThan implements Collector {
  /** Ends a search early: the passage is not among the topk. */
  static final class Enough extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Enough() {
      super(null, null, false, false);
    }
  }

  private final BestHits.Hit gold;
  private final int topk;
  private int count;

  BetterThan(BestHits.Hit gold, int topk) {
    this.gold = gold;
    this.topk = topk;
  }

  int count() {
    return count;
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
        scorer.setMinCompetitiveScore(gold.score);
      }

      @Override
      public void collect(int doc) throws IOException {
        float score = scorer.score();
        if (score > gold.score
            || (score == gold.score && ids.of(doc).compareTo(gold.id) < 0)) {
          count++;
          if (count >= topk) {
            throw new Enough();
          }
        }
      }
    };
  }
}
