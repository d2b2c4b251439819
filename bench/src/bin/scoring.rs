//! How long it takes to score a thousand candidates anew, apart from finding and reading them.
//!
//! `cargo xtask bench scoring`
//!
//! Candidates have titles, tags and metadata as small documents have them, and texts of 1,000
//! characters. Each scorer scores all of them 200 times on one thread; the median and the slowest of
//! these are shown, and how long reading an expression takes.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_engine::{
    Evidence, Expression, HybridScoring, Preferences, Scorer, WeightedSum, similarity,
};
use arrwdb_state::{
    Chunk, ChunkId, DocumentId, DocumentMetadata, Metric, Passage, QueryWords, Timestamp,
};
use serde_json::{Value, json};

const CANDIDATES: usize = 1000;
const ROUNDS: usize = 200;

const EXPRESSIONS: [&str; 4] = [
    "similarity",
    "0.7 * similarity + 0.3 * recency",
    "similarity * (1 + stars / 10) + 0.1 * bm25",
    "if(age_days > 365, 0.5, 1) * (0.6 * similarity + 0.2 * recency + 0.1 * position + 0.1 * length) + \
     ln(1 + max(stars, views)) / 10",
];

fn main() -> Outcome<()> {
    let candidates: Vec<(DocumentMetadata, Chunk)> = (0..CANDIDATES).map(candidate).collect();
    let evidence: Vec<Evidence<'_>> = (0_u32..)
        .zip(&candidates)
        .map(|(at, (document, chunk))| {
            let distance = f64::from(at) / CANDIDATES as f64;
            Evidence {
                similarity: similarity(distance, Metric::Cosine),
                distance,
                bm25: f64::from(at % 7),
                age_days: i64::from(at),
                passage: Passage {
                    document_id: DocumentId::from_bytes([1; 16]),
                    document,
                    chunk,
                    index: at % 20,
                },
            }
        })
        .collect();
    println!("{CANDIDATES} candidates, {ROUNDS} rounds, one thread");
    let preferences = Preferences::default();
    for text in EXPRESSIONS {
        let started = Instant::now();
        let expression = Expression::read(text, preferences)?;
        let read = started.elapsed();
        measure(&format!("expression {text} (read in {read:?})"), &evidence, |it| {
            expression.score(it)
        });
    }
    let recency = WeightedSum::by_recency(preferences);
    measure("recency", &evidence, |it| recency.score(it));
    let scoring = HybridScoring {
        half_life_days: Some(30.0),
        field_boosts: [("title".to_owned(), 2.0), ("tags".to_owned(), 1.0)].into(),
        words: QueryWords::of("how do models learn from candidates?"),
        ..HybridScoring::default()
    };
    measure("hybrid, recency and two fields by words", &evidence, |it| {
        scoring.breakdown(it, None).hybrid_score
    });
    Ok(())
}

fn measure(name: &str, evidence: &[Evidence<'_>], score: impl Fn(&Evidence<'_>) -> f64) {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_round| {
            let started = Instant::now();
            for it in evidence {
                black_box(score(black_box(it)));
            }
            started.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let micros = |at: usize| rounds[at].as_secs_f64() * 1e6;
    println!(
        "{:>9.1} us median, {:>9.1} us slowest: {name}",
        micros(ROUNDS / 2),
        micros(ROUNDS - 1)
    );
}

fn candidate(at: usize) -> (DocumentMetadata, Chunk) {
    let created_at = Timestamp::from_micros(0);
    let custom = json!({"stars": at % 6, "views": at * 31, "lang": "en", "section": {"depth": 2}});
    let custom = if let Value::Object(custom) = custom { custom } else { serde_json::Map::new() };
    let document = DocumentMetadata {
        title: format!("Candidate {at} of those that models learn from"),
        author: Some("Ada".into()),
        document_type: "text".into(),
        source_url: None,
        tags: vec!["machine learning".into(), "search".into()],
        custom,
        created_at,
    };
    let chunk = Chunk {
        id: ChunkId::from_bytes([2; 16]),
        text: "a text of words ".repeat(63),
        embedding: Vec::new(),
        created_at,
        page_number: None,
        custom: serde_json::Map::new(),
    };
    (document, chunk)
}
