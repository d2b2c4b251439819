//! A random rotation, so that whatever a vector is like, its numbers come out alike: few bits then
//! serve all of them equally well.

use std::ops::Range;

use arrwdb_kernel::kernels;

use crate::random::hash;

/// Signs and transforms, in turns: after two from each side the numbers of any vector are spread.
const TRANSFORMS: usize = 4;

/// An orthogonal map: random signs and a fast Walsh-Hadamard transform over the largest power of
/// two of numbers from the front and then from the back, twice over (Ailon and Chazelle,
/// "The fast Johnson-Lindenstrauss transform", 2009). Lengths and angles stay, up to rounding.
/// O(dims log dims).
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    dims: usize,
    /// Numbers that one transform is over.
    block: usize,
    /// For each round and each of its two transforms, what to multiply the numbers with: signs,
    /// and for those of the transform its scale.
    factors: Vec<f32>,
}

impl Rotation {
    /// The rotation of a seed.
    ///
    /// # Panics
    /// If there is no dimension.
    pub(crate) fn new(dims: usize, seed: u64) -> Self {
        assert!(dims > 0, "a vector has at least one dimension");
        let block = 1 << dims.ilog2();
        let scale = 1.0 / (block as f32).sqrt();
        let mut factors = Vec::with_capacity(dims * TRANSFORMS);
        for transform in 0..TRANSFORMS {
            let scaled = range(dims, block, transform);
            for place in 0..dims {
                let magnitude = if scaled.contains(&place) { scale } else { 1.0 };
                let random = hash(seed, factors.len() as u64);
                factors.push(if random & 1 == 1 { -magnitude } else { magnitude });
            }
        }
        Self { dims, block, factors }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.factors.as_slice())
    }

    /// Rotates `vector` in place. `room` is memory to be used again.
    ///
    /// # Panics
    /// If it has another dimension.
    pub(crate) fn apply(&self, vector: &mut [f32], room: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dims, "dimension of the rotation");
        room.resize(self.block, 0.0);
        let kernels = kernels();
        for (transform, factors) in self.factors.chunks_exact(self.dims).enumerate() {
            for (value, factor) in vector.iter_mut().zip(factors) {
                *value *= factor;
            }
            let range = range(self.dims, self.block, transform);
            kernels.hadamard(&mut vector[range], room);
        }
    }
}

/// The numbers that a transform is over: from the front and from the back in turns.
fn range(dims: usize, block: usize, transform: usize) -> Range<usize> {
    if transform.is_multiple_of(2) { 0..block } else { dims - block..dims }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::Rotation;

    proptest! {
        #[test]
        fn lengths_and_angles_stay(
            pairs in vec((-1.0_f32..1.0, -1.0_f32..1.0), 1..600),
            seed in any::<u64>(),
        ) {
            let (mut a, mut b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let products = |a: &[f32], b: &[f32]| -> [f64; 3] {
                let dot = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                [dot(a, a), dot(b, b), dot(a, b)]
            };
            let before = products(&a, &b);
            let rotation = Rotation::new(a.len(), seed);
            rotation.apply(&mut a, &mut Vec::new());
            rotation.apply(&mut b, &mut Vec::new());
            for (before, after) in before.into_iter().zip(products(&a, &b)) {
                prop_assert!((before - after).abs() < 1e-4 * a.len() as f64, "{before} {after}");
            }
        }
    }

    #[test]
    fn one_large_number_is_spread_over_all() {
        for dims in [96, 128, 384, 768, 1000] {
            let mut vector = vec![0.0; dims];
            vector[dims / 3] = 1.0;
            Rotation::new(dims, 7).apply(&mut vector, &mut Vec::new());
            let largest = vector.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            assert!(largest < 6.0 / (dims as f32).sqrt(), "{dims}: {largest}");
        }
    }
}
