//! A graph in a file.
//!
//! ```text
//! number rows | number links a row | number layers above the lowest | number first row
//! array u32 first of equal rows | array u32 ends of their others | array u32 others
//! array u32 links of the lowest layer | array u32 rows of the upper layers' nodes
//! for each upper layer, from the lowest: number links a node | array u32 links
//! sketches of the rows, see `crate::sketch`
//! ```

use std::io;

use super::build::LEVEL_MAX;
use super::{Hnsw, Layer, M_MAX, NONE, Twins};
use crate::pages::Pages;
use crate::sketch::Sketch;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

impl Hnsw {
    /// Writes the graph.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(u64::from(self.rows))?;
        out.number(self.base_stride as u64)?;
        out.number(self.upper.len() as u64)?;
        out.number(u64::from(self.first))?;
        self.twins.write(out)?;
        out.array(&self.base)?;
        out.array(&self.upper_rows)?;
        for layer in &self.upper {
            out.number(layer.stride as u64)?;
            out.array(&layer.links)?;
        }
        Sketch::write(self.sketch.as_ref(), out)
    }

    /// Reads a graph over `rows` rows of `dims` numbers. Every link is checked, so that no walk
    /// leaves the rows.
    pub fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("a graph over other rows");
        if from.number("rows")? != u64::from(rows) {
            return Err(wrong);
        }
        let base_stride = from.small("links a row", 2 * M_MAX)? as usize;
        if base_stride == 0 {
            return Err(from.malformed("at least one link a row"));
        }
        let layers = from.small("layers", LEVEL_MAX)?;
        let first = from.small("first row", rows.saturating_sub(1))?;
        let twins = Twins::read(from, rows)?;
        let links = rows as usize * base_stride;
        let base = from.array_of("links of the lowest layer", links)?;
        check_links(from, base, rows)?;
        let upper_rows: &[u32] = from.array("rows of the upper layers")?;
        if upper_rows.iter().any(|row| *row >= rows) || (upper_rows.is_empty() && layers > 0) {
            return Err(from.malformed("a row of the upper layers is past the last"));
        }
        let mut upper: Vec<Layer> = Vec::new();
        let mut below = upper_rows.len();
        for _layer in 0..layers {
            let stride = from.small("links a node", M_MAX)?.max(1) as usize;
            let links: &[u32] = from.array("links of a layer")?;
            let nodes = links.len() / stride;
            let first = upper.is_empty();
            if !links.len().is_multiple_of(stride)
                || nodes == 0
                || nodes > below
                || (first && nodes < below)
            {
                return Err(from.malformed("a layer is a part of the one below it"));
            }
            check_links(from, links, u32::try_from(nodes).unwrap_or(NONE))?;
            below = nodes;
            upper.push(Layer { stride, links: links.to_vec() });
        }
        let sketch = Sketch::read(from, metric, dims, rows)?;
        Ok(Self {
            rows,
            base: Pages::of(base),
            base_stride,
            upper_rows: upper_rows.to_vec(),
            upper,
            first,
            twins,
            sketch,
        })
    }
}

fn check_links(from: &SectionReader<'_>, links: &[u32], nodes: u32) -> Result<(), Malformed> {
    if links.iter().all(|link| *link < nodes || *link == NONE) {
        Ok(())
    } else {
        Err(from.malformed("a link leads past the last node"))
    }
}
