//! Hits are scored by whoever embeds the engine, and ages by the engine's own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Timestamp;
use arrwdb_engine::{
    Clock, Evidence, Preferences, Rescoring, Scorer, Scoring, SearchRequest, WeightedSum,
};

use crate::subject::{TENANT, document, library, nearest, open_at, vector};

const DAY_MICROS: i64 = 86_400_000_000;

#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// The farther, the better; what is nearest has no score.
#[derive(Debug)]
struct Farthest;

impl Scorer for Farthest {
    fn score(&self, evidence: &Evidence<'_>) -> f64 {
        if evidence.distance < 1e-6 { f64::NAN } else { evidence.distance }
    }
}

fn rescored(by: impl Scorer + 'static, k: usize, candidates: usize) -> SearchRequest {
    let by = Scoring::Each(Arc::new(by));
    let rescoring = Some(Rescoring { by, candidates: Some(candidates) });
    SearchRequest { rescoring, ..nearest(vector(1, 0, 0), k) }
}

#[tokio::test(flavor = "multi_thread")]
async fn scorers_of_ones_own_rank_by_ages_of_the_engines_clock() {
    let clock = Arc::new(SetClock(AtomicI64::new(1_700_000_000_000_000)));
    let disk = MemoryDisk::new();
    let engine = open_at(&disk, clock.clone()).await;
    let library = library(&engine).await;
    let documents = (1..=5).map(|n| document(n, 0)).collect();
    engine.put_documents(TENANT, library, documents).await.unwrap();
    let search = async |request| engine.search(TENANT, library, request, None).await.unwrap().hits;
    let score = |hit: &arrwdb_engine::Hit| hit.rescored.as_ref().and_then(|it| it.score);

    let by_distance = search(nearest(vector(1, 0, 0), 5)).await;
    let hits = search(rescored(Farthest, 5, 5)).await;
    let mut expected: Vec<_> = by_distance.iter().skip(1).rev().map(|hit| hit.chunk.id).collect();
    expected.push(by_distance[0].chunk.id);
    assert_eq!(hits.iter().map(|hit| hit.chunk.id).collect::<Vec<_>>(), expected);
    assert!(score(&hits[0]).is_some());
    assert_eq!(score(&hits[4]), None, "what has no score is last");
    assert!(hits[4].score.is_nan());

    let recency = |half_life_days| {
        let preferences = Preferences { half_life_days, ..Preferences::default() };
        rescored(WeightedSum { recency: 1.0, preferences, ..WeightedSum::default() }, 1, 1)
    };
    for (days, expect) in [(0, 1.0), (10, 0.5), (20, 0.25)] {
        clock.0.store(1_700_000_000_000_000 + days * DAY_MICROS, Ordering::Relaxed);
        let found = score(&search(recency(10.0)).await[0]).unwrap();
        assert!((found - expect).abs() < 1e-12, "{days} days: {found}");
    }
    engine.close().await.unwrap();
}
