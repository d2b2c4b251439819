//! What measurements of a sample say about all queries.

/// The quantile of the normal distribution that leaves 5 % above.
const Z: f64 = 1.645;

/// The answers to a sample of queries at one effort.
#[derive(Clone, Debug, Default)]
pub(super) struct Trials {
    /// Of each query, how many of the nearest were found and how many there are.
    pub(super) hits: Vec<(u32, u32)>,
    /// What a search cost on average.
    pub(super) cost: f64,
}

impl Trials {
    /// The part found of all.
    pub(super) fn recall(&self) -> f64 {
        let found: f64 = self.hits.iter().map(|(found, _)| f64::from(*found)).sum();
        found / self.hits_wanted().max(1.0)
    }

    /// The nearest rows of all queries.
    pub(super) fn hits_wanted(&self) -> f64 {
        self.hits.iter().map(|(_, wanted)| f64::from(*wanted)).sum()
    }

    /// The variance of the queries' parts found, and what it would be if hits were independent.
    fn variances(&self) -> (f64, f64) {
        let mean = self.recall();
        let count = self.hits.len() as f64;
        let part = |(found, wanted): &(u32, u32)| f64::from(*found) / f64::from(*wanted).max(1.0);
        let squares: f64 = self.hits.iter().map(|hits| (part(hits) - mean).powi(2)).sum();
        let of_each = self.hits_wanted() / count.max(1.0);
        (squares / (count - 1.0).max(1.0), mean * (1.0 - mean) / of_each.max(1.0))
    }
}

/// By how much fewer trials each step's hits count: of the step itself or of its whole ladder,
/// whichever is more. At least 1, and at most the hits of a query.
pub(super) fn design_effects(ladder: &[&Trials]) -> Vec<f64> {
    let variances: Vec<(f64, f64)> = ladder.iter().map(|trials| trials.variances()).collect();
    let ratio = |(own, independent): (f64, f64)| (independent > 0.0).then(|| own / independent);
    let sum = |(a, b): (f64, f64), (c, d): &(f64, f64)| (a + c, b + d);
    let of_all = ratio(variances.iter().fold((0.0, 0.0), sum));
    ladder
        .iter()
        .zip(&variances)
        .map(|(trials, own)| {
            let of_query = trials.hits_wanted() / (trials.hits.len() as f64).max(1.0);
            let effect = of_all.map_or(of_query, |all| all.max(ratio(*own).unwrap_or(all)));
            effect.clamp(1.0, of_query.max(1.0))
        })
        .collect()
}

/// Wilson's lower bound for a part found in so many trials.
pub(super) fn lower_bound(part: f64, trials: f64) -> f64 {
    if trials <= 0.0 {
        return 0.0;
    }
    let square = Z * Z / trials;
    let spread = Z * (part * (1.0 - part) / trials + square / (4.0 * trials)).sqrt();
    ((part + square / 2.0 - spread) / (1.0 + square)).clamp(0.0, 1.0)
}

/// The nearest values that do not fall: those that do are pooled with their neighbours.
pub(super) fn pooled(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::with_capacity(values.len());
    for value in values {
        pools.push((*value, 1));
        while let [.., (before, m), (after, n)] = pools[..]
            && before > after
        {
            pools.truncate(pools.len() - 2);
            let (m_part, n_part) = (m as f64 * before, n as f64 * after);
            pools.push(((m_part + n_part) / (m + n) as f64, m + n));
        }
    }
    pools.into_iter().flat_map(|(value, count)| std::iter::repeat_n(value, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_fall_are_pooled() {
        assert_eq!(pooled(&[]), Vec::<f64>::new());
        assert_eq!(pooled(&[0.25, 0.5, 1.0]), [0.25, 0.5, 1.0]);
        assert_eq!(pooled(&[0.5, 0.25, 1.0]), [0.375, 0.375, 1.0]);
        assert_eq!(pooled(&[1.0, 0.5, 0.0]), [0.5, 0.5, 0.5]);
        assert_eq!(pooled(&[0.0, 1.0, 0.5, 0.75]), [0.0, 0.75, 0.75, 0.75]);
    }

    #[test]
    fn the_bound_is_below_what_was_found_and_nears_it_with_more_trials() {
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found}");
        // Computed by hand from Wilson's formula with z = 1.645.
        near(lower_bound(1.0, 320.0), 0.99161);
        near(lower_bound(0.95, 320.0), 0.92586);
        near(lower_bound(0.0, 320.0), 0.0);
        near(lower_bound(0.5, 0.0), 0.0);
        for part in [0.1, 0.5, 0.9, 0.99] {
            let bounds = [10.0, 100.0, 1e3, 1e6].map(|trials| lower_bound(part, trials));
            assert!(bounds.is_sorted() && bounds[3] < part && bounds[3] > part - 0.001);
        }
    }

    #[test]
    fn queries_that_lose_everything_or_nothing_count_once() {
        let of = |hits: Vec<(u32, u32)>| Trials { hits, cost: 0.0 };
        // One in ten queries loses all of its ten.
        let clumped = of((0..1000).map(|n| (if n % 10 == 0 { 0 } else { 10 }, 10)).collect());
        // Every query loses one of its ten: less than by chance.
        let even = of(vec![(9, 10); 1000]);
        let perfect = of(vec![(10, 10); 1000]);
        let effects = |ladder: &[&Trials]| design_effects(ladder);
        assert!((effects(&[&clumped])[0] - 10.0).abs() < 0.1);
        assert!((effects(&[&even])[0] - 1.0).abs() < 1e-9);
        assert!((effects(&[&perfect])[0] - 10.0).abs() < 1e-9, "nothing is known: a query is one");
        let both = effects(&[&clumped, &perfect]);
        assert!((both[1] - both[0]).abs() < 0.1, "a step without misses takes its ladder's");
    }

    /// Of many samples of 320 queries, those whose bound is above the truth are few.
    #[test]
    fn the_bound_holds_as_often_as_it_says() {
        let mut state = 7_u64;
        let mut chance = || {
            state = crate::random::mix(state);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for (truth, clump) in [(0.9, 1_u32), (0.95, 2), (0.98, 5), (0.97, 10)] {
            let (samples, mut wrong) = (400, 0);
            for _sample in 0..samples {
                let hits = (0..320).map(|_| {
                    // Hits come in clumps that are found or missed together.
                    let found = (0..10 / clump).filter(|_| chance() < truth).count();
                    (u32::try_from(found).unwrap() * clump, 10)
                });
                let trials = Trials { hits: hits.collect(), cost: 0.0 };
                let effect = design_effects(&[&trials])[0];
                let bound = lower_bound(trials.recall(), trials.hits_wanted() / effect);
                wrong += usize::from(bound > truth);
            }
            assert!(wrong <= samples * 8 / 100, "{truth} in clumps of {clump}: {wrong}");
        }
    }
}
