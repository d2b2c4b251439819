//! Maximal marginal relevance: hits that are near to the query and unlike each other.

use arrwdb_state::Metric;

use crate::scoring::similarity;

/// Numbers that are multiplied at a time, so that the compiler can do it in one register.
const LANES: usize = 8;

/// A candidate's vector, and how near it is to the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relevant<'a> {
    pub(crate) vector: &'a [f32],
    pub(crate) similarity: f64,
}

/// The places of at most `k` candidates in the order in which they are chosen, with what each was
/// worth then: `lambda * similarity - (1 - lambda) * (its greatest similarity to one before it)`.
/// O(k * candidates * dimension).
pub(crate) fn diverse(
    candidates: &[Relevant<'_>],
    (k, lambda): (usize, f64),
    metric: Metric,
) -> Vec<(usize, f64)> {
    let norms: Vec<f64> = candidates.iter().map(|it| dot(it.vector, it.vector).sqrt()).collect();
    let alike = |a: usize, b: usize| {
        let (one, other) = (candidates[a].vector, candidates[b].vector);
        let distance = match metric {
            Metric::Cosine => 1.0 - dot(one, other) / (norms[a] * norms[b]).max(f64::MIN_POSITIVE),
            Metric::Dot => 1.0 - dot(one, other),
            Metric::L2 => {
                let squares = norms[a] * norms[a] + norms[b] * norms[b] - 2.0 * dot(one, other);
                squares.max(0.0).sqrt()
            }
        };
        similarity(distance, metric)
    };
    let mut open: Vec<usize> = (0..candidates.len()).collect();
    let mut nearest = vec![0.0_f64; candidates.len()];
    let mut chosen = Vec::with_capacity(k.min(candidates.len()));
    while chosen.len() < k {
        let worth = |at: usize| lambda * candidates[at].similarity - (1.0 - lambda) * nearest[at];
        // Of equal ones the first: candidates come nearest first.
        let best = open.iter().enumerate().rev().map(|(place, at)| (place, worth(*at)));
        let Some((place, score)) = best.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
        let at = open.remove(place);
        chosen.push((at, score));
        for other in &open {
            nearest[*other] = nearest[*other].max(alike(*other, at));
        }
    }
    chosen
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0_f32; LANES];
    let (chunks, others) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = chunks.remainder().iter().zip(others.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in chunks.zip(others) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    f64::from(sums.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vectors: &[[f32; 2]], lambda: f64, metric: Metric, expected: &[(usize, f64)]) {
        let query = [1.0, 0.0];
        let candidates: Vec<Relevant<'_>> = vectors
            .iter()
            .map(|vector| {
                let product = dot(vector, &query);
                let norm = dot(vector, vector).sqrt();
                let distance = match metric {
                    Metric::Cosine => 1.0 - product / norm,
                    Metric::Dot => 1.0 - product,
                    Metric::L2 => (norm * norm + 1.0 - 2.0 * product).max(0.0).sqrt(),
                };
                Relevant { vector, similarity: similarity(distance, metric) }
            })
            .collect();
        let chosen = diverse(&candidates, (expected.len(), lambda), metric);
        assert_eq!(chosen.len(), expected.len());
        for ((at, score), (wanted, worth)) in chosen.iter().zip(expected) {
            assert_eq!(at, wanted, "{chosen:?}");
            assert!((score - worth).abs() < 1e-6, "{chosen:?}");
        }
    }

    #[test]
    fn the_second_is_the_one_unlike_the_first() {
        // Cosines to the query 1, 1 and 0.6: similarities 1, 1 and 0.8.
        let vectors = [[1.0, 0.0], [2.0, 0.0], [0.6, 0.8]];
        check(&vectors, 0.4, Metric::Cosine, &[(0, 0.4), (2, 0.32 - 0.48), (1, 0.4 - 0.6)]);
        check(&vectors, 1.0, Metric::Cosine, &[(0, 1.0), (1, 1.0), (2, 0.8)]);
        check(&vectors, 0.3, Metric::Cosine, &[(0, 0.3), (2, 0.24 - 0.56), (1, 0.3 - 0.7)]);
    }

    #[test]
    fn other_metrics_have_their_own_likeness() {
        // Distances to the query 0, 1 and 2; the third is 1 from the second and 2 from the first.
        let vectors = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]];
        let expected = [(0, 0.4), (2, (0.4 - 0.6) / 3.0), (1, (0.4 - 0.6) / 2.0)];
        check(&vectors, 0.4, Metric::L2, &expected);
        check(&vectors, 1.0, Metric::Dot, &[(0, 1.0), (1, 1.0), (2, 1.0)]);
    }

    #[test]
    fn long_vectors_are_multiplied_to_their_end() {
        let vector: Vec<f32> = (1_u8..=19).map(f32::from).collect();
        assert!((dot(&vector, &vector) - 2470.0).abs() < 1e-9);
        assert!(diverse(&[], (3, 0.5), Metric::Cosine).is_empty());
    }
}
