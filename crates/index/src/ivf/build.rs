//! Building lists.

use std::ops::Range;

use arrwdb_kernel::BLOCK_ROWS;

use super::blocks::{Blocks, set_row};
use super::book::{Book, Encoded, SAMPLE_MAX};
use super::cluster::{self, Grouped, Points, panels};
use super::space::Space;
use super::{CLUSTERS_MAX, Config, Ivf, RowCodes};
use crate::executor::map_runs;
use crate::pages::Pages;
use crate::random::hash;
use crate::{Executor, Metric, Vectors};

/// A list with so many times the mean of rows is divided.
const LARGE: usize = 4;
/// Rows of the sample for each list.
const SAMPLE_PER_LIST: usize = 64;
/// Rows of the sample at least, for few lists.
const SAMPLE_MIN: usize = 4096;
/// Rows that one task brings into the space, and lists that one encodes.
const TASK_ROWS: usize = 512;
const TASK_LISTS: usize = 8;

/// What is built.
struct Building<'a, V: ?Sized> {
    vectors: &'a V,
    space: &'a Space,
    executor: &'a dyn Executor,
}

/// Groups every row of `vectors` into lists.
///
/// # Panics
/// If the configuration does not fit: see [`Config::check`].
pub fn build<V: Vectors + ?Sized>(
    metric: Metric,
    vectors: &V,
    config: Config,
    seed: u64,
    executor: &dyn Executor,
) -> Ivf {
    assert_eq!(config.check(vectors.dims()), Ok(()), "a configuration that fits");
    let (rows, dims) = (vectors.rows(), vectors.dims());
    let space = Space::of(metric, vectors, seed);
    let building = Building { vectors, space: &space, executor };
    let clusters = config.n_clusters.unwrap_or_else(|| default_clusters(rows)).min(rows);
    let centroids = building.centroids(clusters as usize, seed);
    let (centroids, grouped) = building.lists(centroids, seed);
    let (centroids, grouped) = without_empty(&centroids, grouped, dims);
    let parts = config.pq_subvectors.filter(|_| config.use_pq).map_or(dims.div_ceil(2), |parts| {
        // Checked above to be at most the dimension.
        parts as usize
    });
    let book = building.book(&centroids, &grouped, parts, seed);
    let codes = config.use_pq.then(|| building.encode(&book, &centroids, &grouped));
    let coarse = coarse(&space, &book, &centroids);
    let starts =
        grouped.starts.iter().map(|start| u32::try_from(*start).unwrap_or(u32::MAX)).collect();
    let members = Pages::of(&grouped.members);
    Ivf { rows, space, book, centroids, coarse, starts, members, codes }
}

/// Four times the root: then a search of few lists and the choice among them cost alike.
fn default_clusters(rows: u32) -> u32 {
    (4 * rows.isqrt()).clamp(1, CLUSTERS_MAX)
}

/// Codes of the centroids, if the book can tell them apart.
pub(super) fn coarse(space: &Space, book: &Book, centroids: &[f32]) -> Option<Blocks> {
    if !book.is_fine() {
        return None;
    }
    let dims = space.dims();
    let count = (centroids.len() / dims).div_ceil(BLOCK_ROWS);
    let mut blocks = Blocks::zeroed(book.block_words(), count);
    let zero = vec![0.0; dims];
    let mut encoded = Encoded::default();
    for (block, centroids) in centroids.chunks(dims * BLOCK_ROWS).enumerate() {
        let words = blocks.words_mut(block, 1);
        for (place, centroid) in centroids.chunks_exact(dims).enumerate() {
            book.encode(centroid, &zero, &mut encoded);
            set_row(words, place, &encoded.codes, terms(space.metric(), &encoded));
        }
    }
    Some(blocks)
}

/// What is added to a row's estimate and what its sum is multiplied with.
fn terms(metric: Metric, encoded: &Encoded) -> [f32; 2] {
    match metric {
        Metric::Cosine | Metric::L2 => {
            [encoded.square + 2.0 * encoded.along, -2.0 * encoded.factor]
        }
        Metric::Dot => [0.0, -encoded.factor],
    }
}

impl<V: Vectors + ?Sized> Building<'_, V> {
    fn points(&self, rows: impl Iterator<Item = u32>) -> Points {
        let mut points = Points::new(self.space.dims());
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        for row in rows {
            self.space.row(self.vectors, row, &mut vector, &mut room);
            points.push(&vector);
        }
        points
    }

    fn centroids(&self, clusters: usize, seed: u64) -> Vec<f32> {
        if clusters == 0 {
            return Vec::new();
        }
        let rows = self.vectors.rows();
        let wanted = (clusters * SAMPLE_PER_LIST).max(SAMPLE_MIN);
        let sample = sample(rows, wanted, seed);
        let parts = map_runs(self.executor, sample.len(), TASK_ROWS, &|run| {
            self.points(sample[run].iter().copied())
        });
        let mut points = Points::new(self.space.dims());
        for part in &parts {
            points.append(part);
        }
        drop(parts);
        cluster::train(&points, clusters, seed, self.executor)
    }

    /// The rows of each centroid's list. Centroids that have far too many rows are replaced by
    /// several, and as many of those with the fewest are left out.
    fn lists(&self, centroids: Vec<f32>, seed: u64) -> (Vec<f32>, Grouped) {
        let grouped = self.assign(&centroids);
        let (count, dims) = (grouped.len(), self.space.dims());
        let mean = grouped.members.len() / count.max(1);
        let sizes = grouped.sizes();
        let large = |list: &usize| sizes[*list] > LARGE * mean.max(1);
        let mut kept: Vec<usize> = (0..count).filter(|list| !large(list)).collect();
        let mut added = Vec::new();
        for list in (0..count).filter(large) {
            let points = self.points(grouped.group(list).iter().copied());
            let parts = sizes[list].div_ceil(2 * mean.max(1));
            added.extend(cluster::train(&points, parts, hash(seed, list as u64), self.executor));
        }
        if added.is_empty() {
            return (centroids, grouped);
        }
        kept.sort_unstable_by_key(|list| (sizes[*list], *list));
        let surplus = (kept.len() + added.len() / dims).saturating_sub(count).min(kept.len());
        let mut kept = kept.split_off(surplus);
        kept.sort_unstable();
        for list in kept {
            added.extend_from_slice(&centroids[list * dims..][..dims]);
        }
        let grouped = self.assign(&added);
        (added, grouped)
    }

    fn assign(&self, centroids: &[f32]) -> Grouped {
        let dims = self.space.dims();
        let panels = panels(dims, centroids);
        let rows = self.vectors.rows() as usize;
        let parts = map_runs(self.executor, rows, TASK_ROWS, &|run| {
            let points = self.points(run.map(row_number));
            let nearest = points.nearest(&panels, 0..points.len());
            nearest.iter().map(|nearest| nearest.point).collect::<Vec<u32>>()
        });
        Grouped::of(&parts.concat(), centroids.len() / dims)
    }

    /// A book for what is left of the rows when their centroids are taken away.
    fn book(&self, centroids: &[f32], grouped: &Grouped, parts: usize, seed: u64) -> Book {
        let dims = self.space.dims();
        let chosen = sample(self.vectors.rows(), SAMPLE_MAX, !seed);
        let mut residuals = Vec::with_capacity(chosen.len() * dims);
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        for place in chosen {
            let list = grouped.starts.partition_point(|start| *start <= place as usize) - 1;
            self.space.row(self.vectors, grouped.members[place as usize], &mut vector, &mut room);
            let centroid = &centroids[list * dims..][..dims];
            residuals.extend(vector.iter().zip(centroid).map(|(value, center)| value - center));
        }
        Book::train(dims, parts, &residuals, seed, self.executor)
    }

    fn encode(&self, book: &Book, centroids: &[f32], grouped: &Grouped) -> RowCodes {
        let (lists, dims) = (grouped.len(), self.space.dims());
        let stride = book.block_words();
        let mut block_starts = vec![0_u32];
        let mut blocks = 0;
        for size in grouped.sizes() {
            blocks += size.div_ceil(BLOCK_ROWS);
            block_starts.push(u32::try_from(blocks).unwrap_or(u32::MAX));
        }
        let mut made = Blocks::zeroed(stride, blocks);
        // A run of lists at a time, so that codes are not held twice.
        let run_lists = TASK_LISTS * self.executor.width().max(1) * 4;
        for first in (0..lists).step_by(run_lists) {
            let run = first..lists.min(first + run_lists);
            let parts = map_runs(self.executor, run.len(), TASK_LISTS, &|part: Range<usize>| {
                let mut words = Vec::new();
                for list in first + part.start..first + part.end {
                    let centroid = &centroids[list * dims..][..dims];
                    self.encode_list(book, centroid, grouped.group(list), &mut words);
                }
                words
            });
            let start = block_starts[run.start] as usize;
            let count = block_starts[run.end] as usize - start;
            let mut place = made.words_mut(start, count);
            for part in parts {
                let (words, rest) = place.split_at_mut(part.len());
                words.copy_from_slice(&part);
                place = rest;
            }
        }
        RowCodes { blocks: made, starts: block_starts }
    }

    fn encode_list(&self, book: &Book, centroid: &[f32], members: &[u32], words: &mut Vec<u32>) {
        let (mut vector, mut room) = (Vec::new(), Vec::new());
        let mut encoded = Encoded::default();
        for rows in members.chunks(BLOCK_ROWS) {
            let start = words.len();
            words.resize(start + book.block_words(), 0);
            for (place, row) in rows.iter().enumerate() {
                self.space.row(self.vectors, *row, &mut vector, &mut room);
                for (value, center) in vector.iter_mut().zip(centroid) {
                    *value -= center;
                }
                book.encode(&vector, centroid, &mut encoded);
                let terms = terms(self.space.metric(), &encoded);
                set_row(&mut words[start..], place, &encoded.codes, terms);
            }
        }
    }
}

/// Leaves out lists without a row: a search would count them among those it probes.
fn without_empty(centroids: &[f32], grouped: Grouped, dims: usize) -> (Vec<f32>, Grouped) {
    let sizes = grouped.sizes();
    let lists = centroids.chunks_exact(dims.max(1)).zip(&sizes).filter(|(_, size)| **size > 0);
    let kept = lists.flat_map(|(centroid, _)| centroid).copied().collect();
    let mut starts = grouped.starts;
    starts.dedup();
    (kept, Grouped { starts, members: grouped.members })
}

/// At most `wanted` different rows, ascending, one at random from each of as many runs of rows.
pub(crate) fn sample(rows: u32, wanted: usize, seed: u64) -> Vec<u32> {
    let (rows, wanted) = (u64::from(rows), wanted as u64);
    if rows <= wanted {
        return (0..rows).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
    }
    let run = |place: u64| place * rows / wanted;
    let row = |place: u64| {
        let (first, end) = (run(place), run(place + 1));
        u32::try_from(first + hash(seed, place) % (end - first)).unwrap_or(u32::MAX)
    };
    (0..wanted).map(row).collect()
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
