//! What a build takes, before it is begun.

use crate::codes::Scheme;
use crate::ivf::book::SAMPLE_MAX;
use crate::{IndexSpec, Structure};

impl IndexSpec {
    /// About how many bytes of memory the build of a structure over so many rows takes at most,
    /// the structure itself included. It errs on the side of more.
    pub fn build_bytes(self, dims: usize, rows: u32) -> u64 {
        /// Scale and error of a row's codes.
        const CODE_EXTRA: u64 = 16;
        let (rows, dims) = (u64::from(rows), dims as u64);
        let codes_of = |bits: u64| rows * (bits.div_ceil(8) + CODE_EXTRA);
        let codes = |bits: u64| codes_of(dims * bits);
        let structure = match self.structure {
            Structure::BruteForce => 0,
            // Rows in the order of the leaves, and while it is built a key for each.
            Structure::KdTree { .. } => rows * 24,
            // A bucket of each row in each table, and while it is built its hash.
            Structure::Lsh { build } => rows * u64::from(build.num_tables()) * 12,
            Structure::Ivf { build, .. } => {
                let centroids = rows.isqrt() * 4 * dims * 8;
                let codes = if build.use_pq { codes(4) } else { 0 };
                rows * 16 + centroids + codes
            }
            // Links and their distances, in a graph over codes, and sketches.
            Structure::Hnsw { build, .. } => rows * (16 * u64::from(build.m) + 8 + 104) + codes(8),
        };
        // A centre, a rotation and tables of points; and the rows that those are made from.
        let frame = dims * 128;
        let sample = rows.min(SAMPLE_MAX as u64) * dims * 8;
        // Codes are made part by part and then put together.
        let twice = |bits: u64| 2 * codes_of(bits);
        structure
            + match self.quantization.scheme() {
                None => 0,
                Some(Scheme::Scalar(bits)) => codes(bits.count()),
                Some(Scheme::Binary) => frame + twice(dims.next_multiple_of(64)),
                Some(Scheme::Product(parts)) => {
                    let parts = parts.map_or(dims.div_ceil(2), u64::from);
                    // Points of each part: 16, with a number for each of its own.
                    let points = (parts + dims) * 16 * 4;
                    frame + points + sample + twice(4 * parts.next_multiple_of(4))
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use crate::corpus::Shape;
    use crate::{IndexSpec, Metric, Quantization, SegmentIndex, Sequential, Structure};

    #[test]
    fn what_keeps_more_takes_more() {
        let bytes = |name, strategy| {
            let structure = Structure::new(name, &[]).unwrap();
            let quantization = Quantization::new(strategy, &[]).unwrap();
            IndexSpec { structure, quantization }.build_bytes(384, 100_000)
        };
        assert_eq!(bytes("brute_force", "none"), 0);
        assert_eq!(bytes("brute_force", "scalar"), 100_000 * 400);
        assert!(bytes("hnsw", "none") > 100_000 * 2 * 16 * 4);
        assert!(bytes("hnsw", "hybrid") > bytes("hnsw", "none") + 100_000 * 384);
        assert!(bytes("ivf_pq", "none") > bytes("ivf", "none"));
    }

    #[test]
    fn a_build_is_said_to_take_at_least_what_it_leaves() {
        for dims in [1, 5, 48, 129] {
            let corpus = Shape::Spread.corpus(3, dims, 700);
            let parts = [0, 1, dims as u64 / 2, dims as u64];
            let product = parts.map(|parts| ("product", vec![("pq_subvectors", parts)]));
            for (strategy, parameters) in [("binary", vec![])].into_iter().chain(product) {
                let quantization = Quantization::new(strategy, &parameters).unwrap();
                for name in ["brute_force", "lsh", "hnsw", "ivf"] {
                    let structure = Structure::new(name, &[]).unwrap();
                    let Ok(spec) = IndexSpec::new(structure, quantization) else { continue };
                    let index = SegmentIndex::build(spec, Metric::L2, &corpus.block(), &Sequential);
                    let codes = index.code_bytes() as u64;
                    let whole = IndexSpec { quantization: Quantization::None, ..spec };
                    let of_codes = spec.build_bytes(dims, 700) - whole.build_bytes(dims, 700);
                    assert!(of_codes >= codes, "{spec}, {dims}: {of_codes} for codes of {codes}");
                    let (said, left) = (spec.build_bytes(dims, 700), index.bytes() as u64);
                    assert!(said >= left, "{spec}, {dims}: {said} for {left}");
                }
            }
        }
    }
}
