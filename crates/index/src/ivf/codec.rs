//! Lists in a file.
//!
//! ```text
//! number rows | number metric | number seed | number parts of a code
//! array f32 center | array f32 points of the book | array f32 centroids
//! array u32 starts of the lists and the end of the last | array u32 rows of the lists
//! number 1 if rows have codes, else 0 | if so, array u32 blocks of codes
//! ```
//!
//! Codes of the centroids follow from the rest and are made again.

use std::io;

use arrwdb_kernel::{BLOCK_ROWS, PART_BYTES};

use super::blocks::Blocks;
use super::book::Book;
use super::build::coarse;
use super::space::Space;
use super::{CLUSTERS_MAX, DIMS_MAX, Ivf, RowCodes};
use crate::pages::Pages;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

impl Ivf {
    /// Writes the lists.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(u64::from(self.rows))?;
        let metric = Metric::ALL.iter().position(|metric| *metric == self.space.metric());
        out.number(metric.unwrap_or(0) as u64)?;
        out.number(self.space.seed())?;
        out.number(self.book.parts() as u64)?;
        out.array(self.space.center())?;
        out.array(self.book.points())?;
        out.array(&self.centroids)?;
        out.array(&self.starts)?;
        out.array(&self.members)?;
        out.number(u64::from(self.codes.is_some()))?;
        self.codes.as_ref().map_or(Ok(()), |codes| out.array(codes.blocks.words()))
    }

    /// Reads lists over `rows` rows. Everything is checked that a search relies on.
    pub fn read(from: &mut SectionReader<'_>, rows: u32) -> Result<Self, Malformed> {
        let wrong = from.malformed("lists of other rows");
        if from.number("rows")? != u64::from(rows) {
            return Err(wrong);
        }
        let metric = from.small("metric", 2)? as usize;
        let metric = Metric::ALL.get(metric).copied().unwrap_or_default();
        let seed = from.number("seed")?;
        let parts = from.small("parts of a code", DIMS_MAX)? as usize;
        let center: &[f32] = from.array("center")?;
        let dims = center.len();
        if dims == 0 || dims > DIMS_MAX as usize || parts == 0 || parts > dims {
            return Err(from.malformed("numbers of a row and parts of them"));
        }
        let points = parts * dims.div_ceil(parts) * PART_BYTES;
        let book = Book::new(dims, parts, from.array_of("points of the book", points)?.to_vec());
        let centroids: &[f32] = from.array("centroids")?;
        let lists = centroids.len() / dims;
        if lists * dims != centroids.len() || lists > CLUSTERS_MAX as usize {
            return Err(from.malformed("whole centroids, not too many"));
        }
        let starts = from.array_of("starts of the lists", lists + 1)?;
        let members = from.array_of("rows of the lists", rows as usize)?;
        check_lists(from, starts, members)?;
        let codes = match from.small("whether rows have codes", 1)? {
            0 => None,
            _ => Some(read_codes(from, &book, starts)?),
        };
        let space = Space::new(metric, center.to_vec(), seed);
        let coarse = coarse(&space, &book, centroids);
        Ok(Self {
            rows,
            space,
            book,
            centroids: centroids.to_vec(),
            coarse,
            starts: starts.to_vec(),
            members: Pages::of(members),
            codes,
        })
    }
}

/// Every row is in one list, and each list's rows ascend.
fn check_lists(from: &SectionReader<'_>, starts: &[u32], members: &[u32]) -> Result<(), Malformed> {
    let ends = (starts.first(), starts.last().map(|end| *end as usize));
    if ends != (Some(&0), Some(members.len())) || !starts.is_sorted() {
        return Err(from.malformed("lists follow one another and hold every row"));
    }
    let mut listed = vec![false; members.len()];
    for member in members {
        match listed.get_mut(*member as usize) {
            Some(listed) if !*listed => *listed = true,
            _ => return Err(from.malformed("a row is in two lists or past the last")),
        }
    }
    let ascending = |ends: &[u32]| members[ends[0] as usize..ends[1] as usize].is_sorted();
    if starts.windows(2).all(ascending) {
        Ok(())
    } else {
        Err(from.malformed("the rows of a list ascend"))
    }
}

fn read_codes(
    from: &mut SectionReader<'_>,
    book: &Book,
    list_starts: &[u32],
) -> Result<RowCodes, Malformed> {
    let mut starts = vec![0_u32];
    let mut blocks = 0;
    for ends in list_starts.windows(2) {
        blocks += ((ends[1] - ends[0]) as usize).div_ceil(BLOCK_ROWS);
        starts.push(u32::try_from(blocks).unwrap_or(u32::MAX));
    }
    let words = blocks.checked_mul(book.block_words());
    let words = from.array_of("blocks of codes", words.unwrap_or(usize::MAX))?;
    Ok(RowCodes { blocks: Blocks::of(book.block_words(), words), starts })
}
