//! One ranking of two: what vectors found and what keywords found.

use std::collections::HashMap;

use arrwdb_state::RowPlace;

/// The constant of reciprocal rank fusion: how little the first ranks stand out. (Cormack, Clarke and
/// Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
/// 2009.)
pub(crate) const RANK_CONSTANT: f64 = 60.0;

/// Candidates of each list that are fused, at least; more if more are asked for.
pub(crate) const CANDIDATES_MIN: usize = 100;

/// How two rankings become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fusion {
    /// By ranks: the sum of `1 / (60 + rank)`.
    ReciprocalRank,
    /// By scores: those of vectors as `1 - distance / 2`, within 0 to 1, those of keywords as a part
    /// of the best.
    Weighted,
    /// By scores: those of vectors stretched so that the nearest candidate has 1 and the farthest 0,
    /// whatever range of distances the model uses; those of keywords as a part of the best.
    #[default]
    RelativeScore,
}

impl Fusion {
    /// How much vectors weigh unless asked for, from 0 to 1: what was best on average of several
    /// judged collections (`docs/BENCHMARKS.md`).
    pub fn usual_alpha(self) -> f64 {
        match self {
            Self::ReciprocalRank | Self::Weighted => 0.5,
            Self::RelativeScore => 0.6,
        }
    }
}

/// What a passage is worth by keywords.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByKeywords {
    /// Its rank, from 1, where it is among the best that were looked at.
    pub rank: Option<usize>,
    /// Its BM25, above 0.
    pub score: f32,
}

/// A passage in both lists, or in one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) place: RowPlace,
    /// By the library's metric, of every candidate.
    pub(crate) distance: f32,
    /// Its rank by distance, from 1, if it is among the nearest.
    pub(crate) vector_rank: Option<usize>,
    /// What it is worth by keywords, if it has one of them.
    pub(crate) keyword: Option<ByKeywords>,
    /// What vectors and what keywords add to its score, once they are fused.
    pub(crate) parts: (f64, f64),
}

/// A passage with its distance, or its score.
type Valued = (RowPlace, f32);

/// All candidates of the nearest and of the best by keywords, both in order. `scores` are those by
/// keywords of nearest ones that need not be among the best, `distance` is asked for those that are not among
/// the nearest: of every candidate both are known, however many are looked at.
pub(crate) fn candidates<E>(
    nearest: &[Valued],
    (keywords, scores): (&[Valued], &[Valued]),
    distance: impl Fn(RowPlace) -> Result<f32, E>,
) -> Result<Vec<Candidate>, E> {
    let mut all: Vec<Candidate> = (1..)
        .zip(nearest)
        .map(|(rank, (place, distance))| Candidate {
            place: *place,
            distance: *distance,
            vector_rank: Some(rank),
            keyword: None,
            parts: (0.0, 0.0),
        })
        .collect();
    let places: HashMap<RowPlace, usize> =
        all.iter().enumerate().map(|(at, candidate)| (candidate.place, at)).collect();
    for (place, score) in scores {
        if let Some(at) = places.get(place) {
            all[*at].keyword = Some(ByKeywords { rank: None, score: *score });
        }
    }
    for (rank, (place, score)) in (1..).zip(keywords) {
        let keyword = Some(ByKeywords { rank: Some(rank), score: *score });
        match places.get(place) {
            Some(at) => all[*at].keyword = keyword,
            None => all.push(Candidate {
                place: *place,
                distance: distance(*place)?,
                vector_rank: None,
                keyword,
                parts: (0.0, 0.0),
            }),
        }
    }
    Ok(all)
}

/// The candidates with their scores, best first; of equal scores the nearer, then the one that came
/// first. `alpha` is how much vectors weigh, from 0 to 1; keywords weigh the rest.
pub(crate) fn fuse(
    candidates: Vec<Candidate>,
    fusion: Fusion,
    alpha: f64,
) -> Vec<(f64, Candidate)> {
    let similarities = candidates.iter().map(|it| similarity(it.distance));
    let vectors = match fusion {
        Fusion::RelativeScore => Stretch::of(similarities),
        Fusion::Weighted | Fusion::ReciprocalRank => Stretch { least: 0.0, most: 1.0 },
    };
    // Nothing found is 0, whatever the least that is found.
    let keywords = candidates.iter().filter_map(keyword_score).chain([0.0]);
    let keywords = Stretch::of(keywords);
    let mut scored: Vec<(f64, Candidate)> = candidates
        .into_iter()
        .map(|candidate| {
            let (vector, keyword) = match fusion {
                Fusion::ReciprocalRank => {
                    let part = |rank: Option<usize>| {
                        rank.map_or(0.0, |rank| 1.0 / (RANK_CONSTANT + rank as f64))
                    };
                    let keyword = part(candidate.keyword.and_then(|it| it.rank));
                    // Twice, so that lists that weigh the same give the sum as it is known.
                    (2.0 * part(candidate.vector_rank), 2.0 * keyword)
                }
                Fusion::Weighted | Fusion::RelativeScore => {
                    let keyword = keyword_score(&candidate).map_or(0.0, |it| keywords.stretch(it));
                    let vector = vectors.stretch(similarity(candidate.distance));
                    (vector, keyword)
                }
            };
            let parts = (alpha * vector, (1.0 - alpha) * keyword);
            (parts.0 + parts.1, Candidate { parts, ..candidate })
        })
        .collect();
    scored.sort_by(|(a, of), (b, other)| {
        let nearer = of.distance.total_cmp(&other.distance);
        b.total_cmp(a).then(nearer).then(of.place.cmp(&other.place))
    });
    scored
}

/// What a distance is worth, 1 for none.
fn similarity(distance: f32) -> f64 {
    1.0 - f64::from(distance) / 2.0
}

fn keyword_score(candidate: &Candidate) -> Option<f64> {
    candidate.keyword.map(|it| f64::from(it.score))
}

/// Scores brought to 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    least: f64,
    most: f64,
}

impl Stretch {
    fn of(scores: impl Iterator<Item = f64>) -> Self {
        // A distance that has overflowed is none to stretch by.
        let scores = scores.filter(|score| score.is_finite());
        let (least, most) = scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| {
            (least.min(it), most.max(it))
        });
        Self { least, most }
    }

    fn stretch(self, score: f64) -> f64 {
        if !score.is_finite() {
            return 0.0;
        }
        let range = self.most - self.least;
        // All the same: there is nothing to tell them apart by.
        if range > 0.0 { ((score - self.least) / range).clamp(0.0, 1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [RowPlace; 4] =
        [RowPlace::new(0, 0), RowPlace::new(0, 1), RowPlace::new(0, 2), RowPlace::new(0, 3)];

    fn fused(fusion: Fusion, alpha: f64) -> Vec<(f64, RowPlace)> {
        let nearest = [(PLACES[0], 0.2), (PLACES[1], 0.4), (PLACES[2], 1.0)];
        let keywords = [(PLACES[3], 8.0), (PLACES[1], 6.0)];
        let far = |_place| Ok::<_, ()>(1.2);
        let candidates = candidates(&nearest, (&keywords, &[]), far).unwrap();
        let fused = fuse(candidates, fusion, alpha);
        for (score, candidate) in &fused {
            let (vector, keyword) = candidate.parts;
            assert!((score - (vector + keyword)).abs() < 1e-12, "{candidate:?}");
            let alone = candidate.keyword.is_none();
            assert!(!alone || keyword.abs() < 1e-12, "{candidate:?}");
        }
        fused.into_iter().map(|(score, candidate)| (score, candidate.place)).collect()
    }

    fn check(fused: &[(f64, RowPlace)], expected: &[(f64, usize)]) {
        assert_eq!(fused.len(), expected.len());
        for ((score, place), (wanted, at)) in fused.iter().zip(expected) {
            assert!((score - wanted).abs() < 1e-6, "{fused:?}");
            assert_eq!(*place, PLACES[*at], "{fused:?}");
        }
    }

    #[test]
    fn ranks_are_fused_as_published() {
        let expected =
            [(1.0 / 62.0 + 1.0 / 62.0, 1), (1.0 / 61.0, 0), (1.0 / 61.0, 3), (1.0 / 63.0, 2)];
        check(&fused(Fusion::ReciprocalRank, 0.5), &expected);
        let vectors_only = [(2.0 / 61.0, 0), (2.0 / 62.0, 1), (2.0 / 63.0, 2), (0.0, 3)];
        check(&fused(Fusion::ReciprocalRank, 1.0), &vectors_only);
    }

    #[test]
    fn scores_are_fused_by_their_weights() {
        // Similarities 0.9, 0.8, 0.5 and 0.4; keywords 1 and 0.75 of the best.
        let expected =
            [(0.5 * 0.8 + 0.5 * 0.75, 1), (0.5 * 0.4 + 0.5, 3), (0.5 * 0.9, 0), (0.5 * 0.5, 2)];
        check(&fused(Fusion::Weighted, 0.5), &expected);
        // Stretched: similarities 1, 0.8, 0.2 and 0; keywords as before.
        let expected = [(0.7 * 0.8 + 0.3 * 0.75, 1), (0.7, 0), (0.3, 3), (0.7 * 0.2, 2)];
        check(&fused(Fusion::RelativeScore, 0.7), &expected);
    }

    #[test]
    fn what_is_near_and_not_among_the_best_by_keywords_has_its_score_and_no_rank() {
        let nearest = [(PLACES[0], 0.2), (PLACES[1], 0.4), (PLACES[2], 1.0)];
        let (best, scores) = ([(PLACES[1], 8.0)], [(PLACES[0], 2.0), (PLACES[1], 8.0)]);
        let all = candidates(&nearest, (&best, &scores), |_place| Ok::<_, ()>(0.0)).unwrap();
        let ranked = Some(ByKeywords { rank: Some(1), score: 8.0 });
        let unranked = Some(ByKeywords { rank: None, score: 2.0 });
        let keywords: Vec<_> = all.iter().map(|candidate| candidate.keyword).collect();
        assert_eq!(keywords, [unranked, ranked, None]);
        // Similarities 0.9, 0.8 and 0.5, keywords a quarter of the best, the best, and none.
        let fused = fuse(all.clone(), Fusion::Weighted, 0.5);
        let fused: Vec<_> = fused.iter().map(|(score, it)| (*score, it.place)).collect();
        check(&fused, &[(0.5 * 0.8 + 0.5, 1), (0.5 * 0.9 + 0.5 * 0.25, 0), (0.5 * 0.5, 2)]);
        let fused = fuse(all, Fusion::ReciprocalRank, 0.5);
        let fused: Vec<_> = fused.iter().map(|(score, it)| (*score, it.place)).collect();
        check(&fused, &[(1.0 / 62.0 + 1.0 / 61.0, 1), (1.0 / 61.0, 0), (1.0 / 63.0, 2)]);
    }

    #[test]
    fn nothing_found_is_nothing_fused_and_equal_scores_are_not_divided_by_nothing() {
        assert_eq!(fuse(Vec::new(), Fusion::RelativeScore, 0.5), []);
        let nearest = [(PLACES[1], 0.5), (PLACES[0], 0.5)];
        let candidates = candidates(&nearest, (&[], &[]), |_place| Ok::<_, ()>(0.0)).unwrap();
        let fused = fuse(candidates, Fusion::RelativeScore, 0.5);
        let order: Vec<RowPlace> = fused.iter().map(|(_score, it)| it.place).collect();
        assert_eq!(order, [PLACES[0], PLACES[1]]);
        let nearest = [(PLACES[0], 0.5), (PLACES[1], 0.7), (PLACES[2], f32::INFINITY)];
        let far = super::candidates(&nearest, (&[], &[]), |_place| Ok::<_, ()>(0.0)).unwrap();
        let far = fuse(far, Fusion::RelativeScore, 0.5);
        assert_eq!(far.iter().map(|(score, _it)| *score).collect::<Vec<_>>(), [0.5, 0.0, 0.0]);
        assert!(fused.iter().all(|(score, _it)| (score - 0.5).abs() < 1e-9));
    }
}
