//! The order in which buckets are visited.
//!
//! A near row is on the other side of a hyperplane the sooner, the nearer the query is to it. So a
//! bucket is the more promising, the smaller the sum of squares of the query's distances from the
//! hyperplanes that are between (Lv et al., section 4.3). For each table such sets of hyperplanes
//! come in that order from a heap: after a set, those with its last plane changed for the next one
//! and with the next one added, where planes are ordered by distance. Each set comes so once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Config;

/// Buckets of all tables, the most promising first.
pub(super) struct Probing {
    bits: u32,
    tables: Vec<Sides>,
    heap: BinaryHeap<Reverse<Probe>>,
}

/// The sum of squares, the table, and the planes in the order of their distances, one bit each.
type Probe = (u128, usize, u32);

/// Where a query is among the hyperplanes of a table.
struct Sides {
    code: u32,
    /// The square of the distance of each plane and its bit, the nearest first.
    planes: Vec<(u128, u32)>,
}

impl Probing {
    /// `products` has a number for each hyperplane: its sign is the side of the query.
    pub(super) fn new(products: &[i64], config: Config) -> Self {
        let tables: Vec<Sides> =
            products.chunks_exact(config.hash_size as usize).map(Sides::new).collect();
        let heap = (0..tables.len()).map(|table| Reverse((0, table, 0))).collect();
        Self { bits: config.hash_size, tables, heap }
    }
}

impl Sides {
    fn new(products: &[i64]) -> Self {
        let mut code = 0;
        let mut planes = Vec::with_capacity(products.len());
        for (bit, product) in (0..).zip(products) {
            code |= u32::from(*product >= 0) << bit;
            let distance = u128::from(product.unsigned_abs());
            planes.push((distance * distance, 1_u32 << bit));
        }
        planes.sort_unstable();
        Self { code, planes }
    }
}

impl Iterator for Probing {
    /// A table and a hash.
    type Item = (usize, u32);

    fn next(&mut self) -> Option<(usize, u32)> {
        let Reverse((sum, number, planes)) = self.heap.pop()?;
        let table = &self.tables[number];
        let next = u32::BITS - planes.leading_zeros();
        if next < self.bits {
            let (square, bit) = (table.planes[next as usize].0, 1 << next);
            self.heap.push(Reverse((sum + square, number, planes | bit)));
            if let Some(last) = next.checked_sub(1) {
                let changed = planes ^ (1 << last) | bit;
                let sum = sum - table.planes[last as usize].0 + square;
                self.heap.push(Reverse((sum, number, changed)));
            }
        }
        let between = |(place, plane): (u32, &(u128, u32))| (planes >> place & 1) * plane.1;
        let flipped: u32 = (0..).zip(&table.planes).map(between).sum();
        Some((number, table.code ^ flipped))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::Probing;
    use crate::lsh::Config;

    proptest! {
        #[test]
        fn each_bucket_comes_once_and_the_most_promising_first(
            products in vec(-50_i64..50, 12..13),
            hash_size in prop_oneof![Just(1_u32), Just(3), Just(4), Just(6)],
        ) {
            let config = Config::new(12 / hash_size, hash_size).unwrap();
            let found: Vec<(usize, u32)> = Probing::new(&products, config).collect();
            let sum = |(table, code): (usize, u32)| -> i64 {
                let products = &products[table * hash_size as usize..][..hash_size as usize];
                let between = |(bit, product): &(usize, &i64)| {
                    (code >> bit & 1 == 1) != (**product >= 0)
                };
                let sides = products.iter().enumerate().filter(between);
                sides.map(|(_, product)| product * product).sum()
            };
            let sums: Vec<i64> = found.iter().copied().map(sum).collect();
            prop_assert!(sums.is_sorted());
            let mut all = found.clone();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), found.len());
            prop_assert_eq!(all.len(), config.num_tables() as usize * (1 << hash_size));
        }
    }
}
