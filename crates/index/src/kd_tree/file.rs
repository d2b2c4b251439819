//! A tree in a file.

use std::io;

use super::{AXES_MAX, Frame, KdTree, depth};
use crate::walk::is_permutation;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

impl KdTree {
    /// Writes the tree.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(metric_number(self.metric))?;
        out.number(u64::from(self.rows))?;
        out.number(self.frame.dims() as u64)?;
        out.number(u64::from(self.leaf_rows))?;
        for size in [self.frame.length_max, self.frame.norm_max, self.frame.inverse_max] {
            out.number(size.to_bits())?;
        }
        out.array(&self.frame.axes)?;
        out.array(&self.frame.mean)?;
        out.array(&self.order)?;
        out.array(&self.boxes)?;
        out.array(&self.centers)?;
        out.array(&self.reaches)
    }

    /// Reads the tree of `rows` rows of `dims` numbers that [`KdTree::write`] wrote (I5).
    ///
    /// Whatever the bytes are, a tree that is read can be searched. That its boxes are those of the
    /// rows is for a checksum to say.
    pub fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        rows: u32,
        dims: usize,
    ) -> Result<Self, Malformed> {
        expect(from, "the metric of a tree", metric_number(metric))?;
        expect(from, "the rows of a tree", u64::from(rows))?;
        expect(from, "the dimension of a tree", dims as u64)?;
        let leaf_rows = from.small("the rows of a leaf", u32::MAX)?;
        if leaf_rows == 0 {
            return Err(from.malformed("a leaf without rows"));
        }
        let mut sizes = [0.0; 3];
        for size in &mut sizes {
            *size = f64::from_bits(from.number("the size of rows")?);
        }
        let [length_max, norm_max, inverse_max] = sizes;
        let axes = from.array_of::<u32>("the axes of boxes", dims.min(AXES_MAX))?;
        let ascend = axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || axes.iter().any(|axis| *axis as usize >= dims) {
            return Err(from.malformed("axes that ascend"));
        }
        let mean = from.array_of("the mean of rows", dims)?;
        let frame =
            Frame { axes: axes.to_vec(), mean: mean.to_vec(), length_max, norm_max, inverse_max };
        let order = from.array_of("the order of rows", rows as usize)?;
        if !is_permutation(order, rows) {
            return Err(from.malformed("an order that has each row once"));
        }
        let leaves = 1_usize << depth(rows, leaf_rows);
        let boxes = from.array_of("boxes", (2 * leaves - 1) * 2 * frame.sides())?;
        let balls = if frame.sees_all() { 0 } else { leaves };
        let centers = from.array_of("the middles of leaves", balls * dims)?;
        let reaches = from.array_of("the reach of leaves", balls)?;
        Ok(Self {
            metric,
            rows,
            leaf_rows,
            frame,
            order: order.to_vec(),
            boxes: boxes.to_vec(),
            centers: centers.to_vec(),
            reaches: reaches.to_vec(),
        })
    }
}

fn metric_number(metric: Metric) -> u64 {
    match metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
    }
}

fn expect(from: &mut SectionReader<'_>, what: &'static str, value: u64) -> Result<(), Malformed> {
    let malformed = from.malformed(what);
    if from.number(what)? == value { Ok(()) } else { Err(malformed) }
}
