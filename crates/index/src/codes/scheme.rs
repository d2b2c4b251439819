//! Codes of any kind: how rows are encoded, and what all codes can do.

use std::io;

use super::binary::{BinaryBlockScorer, BinaryCodes, BinaryScorer};
use super::halved::{HalvedCodes, HalvedScorer};
use super::product::{ProductBlockScorer, ProductCodes, ProductScorer};
use super::{Bits, CodeScorer, Errors, ScalarCodes};
use crate::{Executor, Malformed, Metric, RowId, Scorer, SectionReader, SectionWriter, Vectors};

/// How rows are encoded.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// So many bits for each number.
    Scalar(Bits),
    /// The sign of each number.
    Binary,
    /// 4 bits for each of so many parts; half as many parts as numbers if that is not said.
    Product(Option<u32>),
}

/// How codes are read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// One after the other.
    Scanned,
    /// Some rows here and there.
    Picked,
}

/// The codes of a segment's rows.
#[derive(Debug)]
pub(crate) enum Codes {
    Scalar(ScalarCodes),
    /// Scalar codes of 8 bits that are scanned.
    Halved(HalvedCodes),
    Binary(BinaryCodes),
    Product(ProductCodes),
}

/// Rules rows out by their codes, of which is known how far they are from the rows.
pub(crate) trait BoundedScorer {
    /// `out[i]` becomes what row `first + i` is not nearer than: for certain by scalar codes, likely
    /// by bits. What is not finite says nothing.
    fn lower_bounds(&self, first: RowId, out: &mut [f32]);
}

/// A query against codes of any kind.
#[derive(Debug)]
pub(crate) enum CodesScorer<'a> {
    Scalar(CodeScorer<'a>),
    /// Of all rows, one after the other.
    Halved(HalvedScorer<'a>),
    Binary(BinaryScorer<'a>),
    /// Of all rows, one after the other.
    BinaryBlocks(BinaryBlockScorer<'a>),
    Product(ProductScorer<'a>),
    /// Likewise.
    ProductBlocks(ProductBlockScorer<'a>),
}

impl Codes {
    /// Encodes every row.
    pub(crate) fn encode<V: Vectors + ?Sized>(
        scheme: Scheme,
        metric: Metric,
        access: Access,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        match scheme {
            Scheme::Scalar(Bits::Eight) if access == Access::Scanned => {
                Self::Halved(HalvedCodes::encode(metric, vectors, executor))
            }
            Scheme::Scalar(bits) => {
                Self::Scalar(ScalarCodes::encode(metric, bits, Errors::Kept, vectors, executor))
            }
            Scheme::Binary => Self::Binary(BinaryCodes::encode(metric, access, vectors, executor)),
            Scheme::Product(parts) => {
                Self::Product(ProductCodes::encode(metric, (parts, access), vectors, executor))
            }
        }
    }

    /// The codes that distances between rows can be taken from, if these are such.
    pub(crate) fn comparable(&self) -> Option<&ScalarCodes> {
        match self {
            Self::Scalar(codes) => Some(codes).filter(|codes| codes.bits() == Bits::Eight),
            Self::Halved(_) | Self::Binary(_) | Self::Product(_) => None,
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Scalar(codes) => codes.bytes(),
            Self::Halved(codes) => codes.bytes(),
            Self::Binary(codes) => codes.bytes(),
            Self::Product(codes) => codes.bytes(),
        }
    }

    /// A scorer against `query`, which for [`Metric::Cosine`] is a unit vector.
    pub(crate) fn scorer(&self, query: &[f32]) -> CodesScorer<'_> {
        match self {
            Self::Scalar(codes) => CodesScorer::Scalar(codes.scorer(query)),
            Self::Halved(codes) => CodesScorer::Halved(codes.scorer(query)),
            Self::Binary(codes) => codes.scorer(query),
            Self::Product(codes) => codes.scorer(query),
        }
    }

    /// Writes the codes.
    pub(crate) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        match self {
            Self::Scalar(codes) => codes.write(out),
            Self::Halved(codes) => codes.write(out),
            Self::Binary(codes) => codes.write(out),
            Self::Product(codes) => codes.write(out),
        }
    }

    /// Reads codes of this scheme of `rows` rows.
    pub(crate) fn read(
        from: &mut SectionReader<'_>,
        (scheme, access): (Scheme, Access),
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        match scheme {
            Scheme::Scalar(Bits::Eight) if access == Access::Scanned => {
                Ok(Self::Halved(HalvedCodes::read(from, metric, dims, rows)?))
            }
            Scheme::Scalar(bits) => {
                let wrong = from.malformed("codes of other bits");
                // Files of before had none where rows are picked.
                let kept = match access {
                    Access::Scanned => Errors::Kept,
                    Access::Picked => Errors::Omitted,
                };
                let codes = ScalarCodes::read(from, metric, kept, dims, rows)?;
                if codes.bits() == bits { Ok(Self::Scalar(codes)) } else { Err(wrong) }
            }
            Scheme::Binary => {
                Ok(Self::Binary(BinaryCodes::read(from, access, metric, dims, rows)?))
            }
            Scheme::Product(parts) => {
                let codes = ProductCodes::read(from, (parts, access), metric, dims, rows)?;
                Ok(Self::Product(codes))
            }
        }
    }
}

impl CodesScorer<'_> {
    /// As what structures see, where it scores single rows.
    pub(crate) fn scorer(&self) -> Option<&dyn Scorer> {
        match self {
            Self::Scalar(scorer) => Some(scorer),
            Self::Binary(scorer) => Some(scorer),
            Self::Product(scorer) => Some(scorer),
            Self::Halved(_) | Self::BinaryBlocks(_) | Self::ProductBlocks(_) => None,
        }
    }

    /// As what rules rows out, where the codes' errors are known.
    pub(crate) fn bounded(&self) -> Option<&dyn BoundedScorer> {
        match self {
            Self::Scalar(scorer) => scorer.has_errors().then_some(scorer),
            Self::BinaryBlocks(scorer) => Some(scorer),
            Self::Halved(_) | Self::Binary(_) | Self::Product(_) | Self::ProductBlocks(_) => None,
        }
    }

    /// What a row of this score is not nearer than: for certain by scalar codes, likely by bits; of
    /// other codes that is not known.
    pub(crate) fn lower_bound(&self, row: RowId, score: f32) -> f32 {
        match self {
            Self::Binary(scorer) => scorer.lower_bound(row, score),
            Self::Scalar(scorer) => scorer.lower_bound(row, score),
            Self::Halved(_) | Self::BinaryBlocks(_) | Self::Product(_) | Self::ProductBlocks(_) => {
                f32::NEG_INFINITY
            }
        }
    }
}
