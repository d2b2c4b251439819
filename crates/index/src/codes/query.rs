//! A query in codes of a byte, and how far from the truth distances by codes can be.

use arrwdb_kernel::kernels;

use super::frame::{Frame, Framed};
use super::{Bits, distance_of_codes, inverse};

/// A query in codes.
#[derive(Debug)]
pub(super) struct CodedQuery {
    pub(super) codes: Vec<i8>,
    /// Of its codes.
    pub(super) sum: i32,
    pub(super) scale: f32,
    /// What it adds to the distance of every row.
    pub(super) own: f32,
    pub(super) own_weight: f32,
    pub(super) weight: f32,
    /// How long it is in the frame.
    pub(super) length: f32,
    /// How far its codes are from it.
    pub(super) error: f32,
    /// How long the frame's centre is.
    center: f32,
}

impl CodedQuery {
    /// Encodes `query`, which for [`crate::Metric::Cosine`] is a unit vector.
    pub(super) fn new(frame: &Frame, query: &[f32]) -> Self {
        let Framed { numbers: rotated, length, own } = frame.query(query);
        let scale = kernels().largest(&rotated) / Bits::Eight.reach();
        let mut codes = vec![0; frame.dims()];
        kernels().quantize(&rotated, inverse(scale), &mut codes);
        let (own_weight, weight) = frame.weights();
        Self {
            sum: codes.iter().map(|code| i32::from(*code)).sum(),
            scale,
            own,
            own_weight,
            weight,
            length,
            error: distance_of_codes(&rotated, &codes, scale),
            center: frame.center().iter().map(|value| value * value).sum::<f32>().sqrt(),
            codes,
        }
    }

    /// How much nearer than its score a row can be that is at most so far from its codes and so long.
    ///
    /// The codes' product differs from that of the vectors by at most `|q| e + e_q (|x| + e)`, with
    /// `e` and `e_q` how far the codes are from them (Cauchy and Schwarz), and by rounding.
    pub(super) fn reach(&self, [error, length]: [f32; 2]) -> f32 {
        let codes = self.length * error + self.error * (length + error);
        let rounding = (self.codes.len() as f32 + 64.0) * f32::EPSILON;
        // What the vectors themselves are rounded by counts too, about whatever centre they lie.
        let sizes = (self.length + length) * (self.length + length) + self.own.abs() + 2.0;
        let apart = self.center * (self.length + length + self.center);
        self.weight * codes + rounding * (sizes + apart) + f32::MIN_POSITIVE
    }
}
