//! Reading a segment file through: every checksum, and everything that a writer guarantees.

use super::file::{BLOCK_BYTES, FileSegment, HEADER_BYTES};
use super::{Damage, Head};
use crate::body::BodyReader;
use crate::codec::Reader;
use crate::ids::{DocumentId, Seq};
use crate::record;

/// Where the header says which records the documents are of.
const BORN_OFFSET: usize = 80;

impl FileSegment {
    /// Checks every block and every document; gives what does not hold, at most `faults_max`
    /// findings, and none if the file is sound. Documents are only looked at where every block is
    /// whole, since what a bad block holds means nothing. O(bytes).
    pub fn verify(&self, faults_max: usize) -> Vec<Damage> {
        let mut faults = self.bad_blocks(faults_max);
        if faults.is_empty() {
            let mut next = Next::default();
            for ordinal in 0..self.documents() {
                faults.extend(self.verify_document(ordinal, &mut next).err());
                if faults.len() >= faults_max {
                    return faults;
                }
            }
            faults.extend(self.verify_ends(&next).err());
            faults.extend(self.verify_ids().err());
            faults.truncate(faults_max);
        }
        faults
    }

    fn bad_blocks(&self, faults_max: usize) -> Vec<Damage> {
        let bytes = self.parts.checksums - HEADER_BYTES;
        let blocks = 0..bytes.div_ceil(BLOCK_BYTES);
        blocks.filter_map(|block| self.check_block(block).err()).take(faults_max).collect()
    }

    fn verify_document(&self, ordinal: u32, next: &mut Next) -> Result<(), Damage> {
        let start = self.document_offset(ordinal);
        let head = self.head(ordinal)?;
        let refuse = |what| Err(self.damage(start, what));
        if head.first_row != next.row {
            return refuse("a document does not begin where the one before it ends");
        }
        if head.born < next.born {
            return refuse("documents are not in the order in which they were added");
        }
        next.row = head.first_row + head.rows;
        next.born = head.born;
        next.first_born.get_or_insert(head.born);
        let body = self.body(ordinal)?;
        let document = BodyReader::new(body)
            .and_then(|reader| reader.document(head.id))
            .map_err(|error| self.damage(start, error.what))?;
        if document.chunks.len() != head.rows as usize {
            return refuse("a document has not as many chunks as rows");
        }
        self.verify_rows(&head, body, start)
    }

    fn verify_rows(&self, head: &Head, body: &[u8], start: usize) -> Result<(), Damage> {
        let vectors = self.vectors(head.row_range())?;
        if record::digest(head.id, body, vectors) != head.digest {
            return Err(self.damage(start, "a document's digest is not that of its content"));
        }
        let stored = self.inverse_norms(head.row_range())?;
        let rows = vectors.chunks_exact(self.dimension() as usize);
        for (row, stored) in rows.zip(stored) {
            let norm = arrwdb_index::inverse_norm(row).ok();
            if norm.map(f32::to_bits) != Some(stored.to_bits()) {
                return Err(self.damage(self.parts.inverse_norms, "a norm is not that of its row"));
            }
        }
        Ok(())
    }

    /// What the header says of all documents together.
    fn verify_ends(&self, next: &Next) -> Result<(), Damage> {
        if next.row != self.rows() {
            return Err(self.damage(16, "rows belong to no document"));
        }
        let mut header = Reader::at(self.bytes.bytes(), BORN_OFFSET);
        let claimed = (header.u64("least born").ok(), header.u64("greatest born").ok());
        if claimed != (next.first_born.map(Seq::get), Some(next.born.get())) {
            return Err(
                self.damage(BORN_OFFSET, "the first and last record are not what the header says")
            );
        }
        Ok(())
    }

    /// Every document once, in the order of (id, ordinal).
    fn verify_ids(&self) -> Result<(), Damage> {
        let mut before: Option<(DocumentId, u32)> = None;
        let (least, greatest) = self.id_range();
        for place in 0..self.documents() {
            let ordinal = self.by_id(place)?;
            let id = self.head(ordinal)?.id;
            if before.is_some_and(|before| before >= (id, ordinal)) {
                return Err(self.damage(self.parts.ids, "the table of ids is not in order"));
            }
            if id < least || id > greatest {
                return Err(self.damage(96, "an id lies outside the header's range"));
            }
            before = Some((id, ordinal));
        }
        Ok(())
    }
}

/// What has been seen so far.
#[derive(Default)]
struct Next {
    row: u32,
    born: Seq,
    first_born: Option<Seq>,
}
