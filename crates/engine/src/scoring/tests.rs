use arrwdb_state::{Chunk, ChunkId, Custom, DocumentId, DocumentMetadata};
use serde_json::json;

use super::*;
use crate::expression::Expression;
use crate::weighted_sum::{Preferences, WeightedSum};

const DAY: i64 = DAY_MICROS;

fn near(found: f64, expect: f64, what: &str) {
    assert!((found - expect).abs() < 1e-12, "{what}: {found}, not {expect}");
}

/// A passage of 500 characters, the 21st of its document, 60 days old, at a distance of 0.5.
fn with_evidence(test: impl Fn(&Evidence<'_>)) {
    let created_at = Timestamp::from_micros(0);
    let mut custom = Custom::new();
    custom.insert("stars".into(), json!(4));
    let document = DocumentMetadata {
        title: "Deep learning at sea".into(),
        author: Some("Ada".into()),
        document_type: "paper".into(),
        source_url: None,
        tags: vec!["ships".into(), "machine learning".into()],
        custom,
        created_at,
    };
    let chunk = Chunk {
        id: ChunkId::from_bytes([1; 16]),
        text: "\u{e9}".repeat(500),
        embedding: Vec::new(),
        created_at,
        page_number: None,
        custom: Custom::new(),
    };
    test(&Evidence {
        similarity: similarity(0.5, Metric::Cosine),
        distance: 0.5,
        bm25: 3.0,
        age_days: age_days(created_at, Timestamp::from_micros(61 * DAY - 1)),
        passage: Passage {
            document_id: DocumentId::from_bytes([2; 16]),
            document: &document,
            chunk: &chunk,
            index: 20,
        },
    });
}

#[test]
fn distances_are_worth_0_to_1() {
    for (distance, metric, expect) in [
        (0.0, Metric::Cosine, 1.0),
        (0.5, Metric::Cosine, 0.75),
        (2.0, Metric::Cosine, 0.0),
        (2.000_001, Metric::Cosine, 0.0),
        (-3.0, Metric::Dot, 1.0),
        (7.0, Metric::Dot, 0.0),
        (0.0, Metric::L2, 1.0),
        (3.0, Metric::L2, 0.25),
    ] {
        near(similarity(distance, metric), expect, "similarity");
    }
}

#[test]
fn recency_halves_every_half_life_and_counts_whole_days() {
    let created = Timestamp::from_micros(0);
    for (micros, days) in [(0, 0), (DAY - 1, 0), (DAY, 1), (-1, -1), (30 * DAY, 30)] {
        assert_eq!(age_days(created, Timestamp::from_micros(micros)), days, "{micros}");
    }
    for (days, half_life, expect) in [
        (0, 30.0, 1.0),
        (30, 30.0, 0.5),
        (60, 30.0, 0.25),
        (15, 30.0, 0.5_f64.sqrt()),
        (-5, 30.0, 1.0),
    ] {
        near(recency(days, half_life), expect, "recency");
    }
}

#[test]
fn hybrid_scores_are_weighted_sums_of_what_is_enabled() {
    with_evidence(|evidence| {
        let scoring = HybridScoring::default();
        let plain = scoring.breakdown(evidence, None);
        near(plain.vector_score, 0.75, "vectors");
        near(plain.metadata_score, 0.0, "nothing is enabled");
        near(plain.hybrid_score, 0.7 * 0.75, "hybrid");
        assert_eq!((plain.recency, plain.fields, plain.fused_score), (None, None, None));

        let scoring = HybridScoring { half_life_days: Some(30.0), ..scoring };
        let recent = scoring.breakdown(evidence, None);
        near(recent.metadata_score, 0.25, "60 days at 30");
        near(recent.hybrid_score, 0.7 * 0.75 + 0.3 * 0.25, "hybrid");

        // "deep learning" has 2 of the title's 4 words, none of the author's, 1 of 2 of the best tag's.
        let boosts = [("title", 2.0), ("author", 1.0), ("tags", 1.0)];
        let field_boosts = boosts.map(|(field, boost)| (field.to_owned(), boost)).into();
        let words = QueryWords::of("Deep learning");
        let scoring = HybridScoring { field_boosts, words, ..scoring };
        let boosted = scoring.breakdown(evidence, None);
        let fields = boosted.fields.unwrap();
        near(fields["title"], 1.0, "title");
        near(fields["author"], 0.0, "author");
        near(fields["tags"], 0.5, "tags");
        near(boosted.metadata_score, f64::midpoint(1.5 / 4.0, 0.25), "both");

        let author = FieldValues::read(&json!(["Ada", "Bob"])).unwrap();
        let wanted_values = [("author".to_owned(), author)].into();
        let scoring = HybridScoring { wanted_values, half_life_days: None, ..scoring };
        let matched = scoring.breakdown(evidence, Some(0.9));
        near(matched.metadata_score, (1.0 + 1.0 + 0.5) / 4.0, "fields alone");
        near(matched.hybrid_score, 0.7 * 0.9 + 0.3 * 0.625, "the fused score in place of vectors");
        assert_eq!((matched.fused_score, matched.keyword_score), (Some(0.9), Some(3.0)));

        let nothing = [("title".to_owned(), 0.0)].into();
        let scoring = HybridScoring { field_boosts: nothing, ..HybridScoring::default() };
        near(scoring.breakdown(evidence, None).metadata_score, 0.0, "no boost is no division by 0");
    });
}

#[test]
fn rerank_functions_are_as_published_by_the_original() {
    let usual = Preferences::default();
    with_evidence(|evidence| {
        let recency = WeightedSum::by_recency(usual).score(evidence);
        near(recency, 0.7 * 0.75 + 0.3 * 0.25, "recency");
        let slow = Preferences { half_life_days: 60.0, ..usual };
        near(WeightedSum::by_recency(slow).score(evidence), 0.7 * 0.75 + 0.3 * 0.5, "slow");
        let early = WeightedSum::by_position(usual).score(evidence);
        near(early, 0.8 * 0.75 + 0.2 * 0.8, "early");
        let late = Preferences { prefer_early: false, ..usual };
        near(WeightedSum::by_position(late).score(evidence), 0.8 * 0.75 + 0.2 * 0.2, "late");
        let long = WeightedSum::by_length(usual).score(evidence);
        near(long, 0.85 * 0.75 + 0.15 * 0.1, "long");
        let short = Preferences { prefer_longer: false, ..usual };
        near(WeightedSum::by_length(short).score(evidence), 0.85 * 0.75 + 0.15 * 0.9, "short");
        let custom = WeightedSum {
            bm25: 0.1,
            fields: vec![("stars".into(), 0.5), ("absent".into(), 2.0)],
            preferences: Preferences { default: 1.5, ..usual },
            ..WeightedSum::default()
        };
        near(custom.score(evidence), 0.3 + 2.0 + 3.0, "custom");
    });
}

#[test]
fn expressions_have_all_signals() {
    with_evidence(|evidence| {
        for (text, expect) in [
            ("similarity", 0.75),
            ("distance", 0.5),
            ("bm25", 3.0),
            ("recency", 0.25),
            ("position", 0.8),
            ("length", 0.1),
            ("age_days", 60.0),
            ("chunk_index", 20.0),
            ("chars", 500.0),
            ("stars", 4.0),
            ("{custom.stars}", 4.0),
            ("absent", 0.0),
            ("0.7 * similarity + 0.3 * stars / 5", 0.7 * 0.75 + 0.3 * 0.8),
        ] {
            let expression = Expression::read(text, Preferences::default()).unwrap();
            near(expression.score(evidence), expect, text);
        }
    });
}

#[test]
fn pools_are_as_large_as_the_original_has_them() {
    let hybrid = Rescoring { by: Scoring::Hybrid(Box::default()), candidates: None };
    let diverse = Rescoring { by: Scoring::Diverse { lambda: 0.5 }, candidates: None };
    assert_eq!([10, 100, 200].map(|k| hybrid.pool(k)), [50, 500, 500]);
    assert_eq!([10, 100, 400].map(|k| diverse.pool(k)), [30, 300, 400]);
    let asked = Rescoring { candidates: Some(700), ..diverse };
    assert_eq!(asked.pool(10), 700);
    assert!(asked.check(10).is_ok());
    assert!(Rescoring { candidates: Some(1001), ..asked.clone() }.check(10).is_err());
    assert!(Rescoring { candidates: Some(9), ..asked }.check(10).is_err());
}

#[test]
fn what_has_no_meaning_is_refused() {
    let usual = HybridScoring::default;
    let refused = |scoring: HybridScoring| scoring.check().unwrap_err().to_string();
    assert!(usual().check().is_ok());
    assert!(HybridScoring { vector_weight: 0.71, ..usual() }.check().is_ok());
    assert!(refused(HybridScoring { vector_weight: 0.72, ..usual() }).contains("come to 1"));
    assert!(refused(HybridScoring { vector_weight: f64::NAN, ..usual() }).contains("0 to 1"));
    assert!(refused(HybridScoring { half_life_days: Some(0.5), ..usual() }).contains("at least 1"));
    let negative = [("title".to_owned(), -1.0)].into();
    assert!(refused(HybridScoring { field_boosts: negative, ..usual() }).contains("title"));
    let rescoring = Rescoring { by: Scoring::Diverse { lambda: 1.5 }, candidates: None };
    assert!(rescoring.check(10).unwrap_err().to_string().contains("lambda"));
}

#[test]
fn what_a_score_is_made_of_is_told_by_name() {
    with_evidence(|evidence| {
        let sum = WeightedSum {
            similarity: 0.5,
            length: 2.0,
            fields: vec![("stars".into(), 0.25)],
            ..WeightedSum::default()
        };
        let told = sum.signals(evidence);
        let named = |name: &str| told.iter().find(|(told, _)| told == name).map(|(_, it)| *it);
        assert_eq!(told.len(), 3, "{told:?}");
        near(named("similarity").unwrap(), 0.75, "similarity");
        near(named("length").unwrap(), 0.1, "length");
        near(named("stars").unwrap(), 4.0, "stars");
        let weighed = 0.5 * 0.75 + 2.0 * 0.1 + 0.25 * 4.0;
        near(sum.score(evidence), weighed, "the sum of what is told, weighed");
        let expression = Expression::read("similarity * stars + bm25", Preferences::default());
        let told = expression.unwrap().signals(evidence);
        let expect = [("similarity", 0.75), ("stars", 4.0), ("bm25", 3.0)];
        assert_eq!(told, expect.map(|(name, value)| (name.to_owned(), value)));
    });
}
