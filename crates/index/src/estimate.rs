//! What a build takes, before it is begun.

use crate::codes::Scheme;
use crate::{IndexSpec, Structure};

impl IndexSpec {
    /// About how many bytes of memory the build of a structure over so many rows takes at most,
    /// the structure itself included. It errs on the side of more.
    pub fn build_bytes(self, dims: usize, rows: u32) -> u64 {
        /// Scale and error of a row's codes.
        const CODE_EXTRA: u64 = 16;
        let (rows, dims) = (u64::from(rows), dims as u64);
        let codes = |bits: u64| rows * ((dims * bits).div_ceil(8) + CODE_EXTRA);
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
        structure
            + match self.quantization.scheme() {
                None => 0,
                Some(Scheme::Scalar(bits)) => codes(bits.count()),
                Some(Scheme::Binary) => codes(1),
                // 4 bits for each part of two numbers or more.
                Some(Scheme::Product(_parts)) => codes(2),
            }
    }
}

#[cfg(test)]
mod tests {
    use crate::{IndexSpec, Quantization, Structure};

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
}
