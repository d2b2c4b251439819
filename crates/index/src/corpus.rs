//! Vectors, sets of rows and threads for tests.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use crate::random::hash;
use crate::{
    AllRows, Allowed, Executor, Metric, Query, RowBlock, RowId, TopK, VectorScorer, brute_force,
    inverse_norm, normalized,
};

/// Vectors as a segment holds them.
pub(crate) struct Corpus {
    pub(crate) dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Corpus {
    pub(crate) fn new(dims: usize, vectors: Vec<f32>) -> Self {
        let inverse_norms = vectors.chunks_exact(dims).map(|v| inverse_norm(v).unwrap()).collect();
        Self { dims, vectors, inverse_norms }
    }

    pub(crate) fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }
}

/// How the rows lie.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Shape {
    /// Anywhere in a cube.
    Spread,
    /// Near to a few places.
    Clustered,
    /// On one line.
    Collinear,
    /// A few vectors, each many times.
    Copies,
    /// Of lengths from 1e-6 to 1e6.
    AllLengths,
}

/// A number in `-1..1`, never 0.
fn number(seed: u64, counter: usize) -> f32 {
    let random = hash(seed, counter as u64) >> 40;
    let number = (random as f32 + 0.5) / (1_u64 << 23) as f32 - 1.0;
    // Half is lost of the larger ones, and one of them is the middle.
    if number == 0.0 { f32::EPSILON } else { number }
}

fn vector(seed: u64, dims: usize, row: usize) -> Vec<f32> {
    (0..dims).map(|axis| number(seed, row * dims + axis)).collect()
}

impl Shape {
    fn row(self, seed: u64, dims: usize, row: usize) -> Vec<f32> {
        let own = vector(seed, dims, row);
        let base = |count: usize| {
            let place = usize::try_from(hash(seed ^ 1, row as u64) % count as u64).unwrap();
            vector(seed ^ 2, dims, place)
        };
        let sum = |a: &[f32], b: &[f32], factor: f32| {
            a.iter().zip(b).map(|(a, b)| a + b * factor).collect()
        };
        match self {
            Self::Spread => own,
            Self::Clustered => sum(&base(20), &own, 0.1),
            Self::Collinear => sum(&vector(seed, dims, 0), &vector(seed ^ 3, dims, 0), own[0]),
            Self::Copies => base(7),
            Self::AllLengths => {
                let length = 10.0_f32.powf(6.0 * number(seed ^ 4, row));
                own.iter().map(|value| value * length).collect()
            }
        }
    }

    pub(crate) fn corpus(self, seed: u64, dims: usize, rows: u32) -> Corpus {
        Corpus::new(dims, (0..rows as usize).flat_map(|row| self.row(seed, dims, row)).collect())
    }
}

/// Rows, and a question to ask of them.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) metric: Metric,
    pub(crate) shape: Shape,
    pub(crate) dims: usize,
    pub(crate) rows: u32,
    pub(crate) seed: u64,
    /// The query is what this row is, or would be.
    pub(crate) asked: u32,
    pub(crate) k: usize,
    /// Scored, not reported.
    pub(crate) threshold: f32,
    /// One row in so many is allowed; 0 for all, and none above all rows.
    pub(crate) sparsity: u32,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![
        4 => (1_usize..5, 1_u32..1500),
        4 => (5_usize..40, 1_u32..900),
        1 => (40_usize..601, 1_u32..120),
        1 => (1_usize..601, Just(1_u32)),
    ];
    let shape = prop_oneof![
        Just(Shape::Spread),
        Just(Shape::Clustered),
        Just(Shape::Collinear),
        Just(Shape::Copies),
        Just(Shape::AllLengths),
    ];
    let threshold = prop_oneof![
        4 => Just(f32::INFINITY),
        1 => Just(2.0),
        1 => Just(0.0),
        2 => (0_u16..1000).prop_map(|share| f32::from(share) / 500.0),
    ];
    let sparsity =
        prop_oneof![3 => Just(0_u32), 1 => Just(1), 2 => 2_u32..200, 1 => Just(u32::MAX)];
    let metric = prop_oneof![Just(Metric::Cosine), Just(Metric::Dot), Just(Metric::L2)];
    let k = prop_oneof![8 => 0_usize..30, 1 => 30_usize..2000, 1 => Just(usize::MAX)];
    (metric, shape, size, any::<u64>(), k, (threshold, sparsity)).prop_map(
        |(metric, shape, (dims, rows), seed, k, (threshold, sparsity))| Case {
            metric,
            shape,
            dims,
            rows,
            seed,
            // Every other query is one of the rows.
            asked: u32::try_from(seed % (2 * u64::from(rows))).unwrap(),
            k,
            threshold,
            sparsity,
        },
    )
}

impl Case {
    pub(crate) fn corpus(&self) -> Corpus {
        self.shape.corpus(self.seed, self.dims, self.rows)
    }

    /// A vector like those of the corpus.
    pub(crate) fn query(&self) -> Vec<f32> {
        let vector = self.shape.row(self.seed, self.dims, self.asked as usize);
        if self.metric == Metric::Cosine { normalized(&vector).unwrap().0 } else { vector }
    }

    pub(crate) fn allowed(&self) -> Box<dyn Allowed> {
        if self.sparsity == 0 {
            return Box::new(AllRows);
        }
        let chosen = |row: &u32| hash(7, u64::from(*row)).is_multiple_of(u64::from(self.sparsity));
        Box::new(Chosen((0..self.rows).filter(chosen).collect()))
    }
}

/// A set of rows that answers words by the trait's default.
pub(crate) struct Chosen(pub(crate) BTreeSet<u32>);

impl Allowed for Chosen {
    fn allows(&self, row: RowId) -> bool {
        self.0.contains(&row.0)
    }
}

/// What `search` keeps of a case, and what a scan keeps, with the bits of their distances.
pub(crate) fn both<S>(case: &Case, corpus: &Corpus, search: S) -> [Vec<(u32, RowId)>; 2]
where
    S: FnOnce(Query<'_>, &mut TopK<RowId>),
{
    let (vector, allowed, block) = (case.query(), case.allowed(), corpus.block());
    let scorer = VectorScorer::new(case.metric, &vector, &block);
    let query = Query { scorer: &scorer, vector: &vector, allowed: &*allowed };
    let mut found = TopK::within(case.k, case.threshold);
    search(query, &mut found);
    let mut expect = TopK::within(case.k, case.threshold);
    brute_force::search(&scorer, 0..case.rows, &*allowed, &mut expect, |row| row);
    [found, expect].map(|top| {
        let sorted = top.into_sorted().into_iter();
        sorted.map(|(distance, row)| (distance.to_bits(), row)).collect()
    })
}

/// Two threads, which take tasks from the last to the first.
pub(crate) struct Threads;

impl Executor for Threads {
    fn width(&self) -> usize {
        2
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let left = AtomicUsize::new(tasks);
        let take = || {
            let one_less = |left: usize| left.checked_sub(1);
            while let Ok(before) = left.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
                task(before - 1);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(take);
            take();
        });
    }
}
