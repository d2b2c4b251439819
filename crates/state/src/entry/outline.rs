//! What an entry of a library says without its texts and vectors: what followers tell others of it.
//! Reading it neither copies nor checks what it leaves out.

use bytes::Bytes;

use super::documents::{self, DeletedDocument};
use super::{DOCUMENTS_PUT, FIELDS_VERSION, LibraryEntry};
use crate::batch::BatchNote;
use crate::body;
use crate::codec::{DecodeError, Reader};
use crate::field::FieldSpec;
use crate::ids::{ChunkId, DocumentId, Timestamp};
use crate::matched::QueriesMatched;

/// An entry of a library without texts and vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct LibraryOutline {
    /// When.
    pub at: Timestamp,
    /// What changed.
    pub change: OutlineChange,
}

/// What an entry of a library changed.
#[derive(Debug, Clone, PartialEq)]
pub enum OutlineChange {
    /// Documents were added or replaced.
    Put(Vec<PutOutline>),
    /// Documents were deleted.
    Deleted(Vec<DeletedDocument>),
    /// A batch began or ended.
    Batch(BatchNote),
    /// There is a vector field, or another index of one.
    Field(FieldSpec),
    /// Of a companion: standing queries matched passages of the library it belongs to.
    Matched(QueriesMatched),
}

/// A document that was added, or took the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOutline {
    /// Its id.
    pub id: DocumentId,
    /// Its title.
    pub title: String,
    /// Its chunks, in their order.
    pub chunks: Vec<ChunkId>,
    /// The chunks of the version that it replaced; `None` if it replaced none, and in entries of
    /// version 1, which do not say.
    pub replaced: Option<Vec<ChunkId>>,
}

impl LibraryOutline {
    /// Reads an entry given in the parts that [`LibraryEntry::encode`] makes, or whole.
    pub fn read(parts: &[Bytes]) -> Result<Self, DecodeError> {
        let none = DecodeError { what: "an entry", offset: 0 };
        let first = parts.first().ok_or(none)?;
        let mut from = Reader::new(first);
        let (kind, version) = (from.u8("entry kind")?, from.u8("entry version")?);
        if kind == DOCUMENTS_PUT && (1..=FIELDS_VERSION).contains(&version) {
            let at = Timestamp::from_micros(from.i64("time")?);
            let heads = documents::read_heads(&mut from, version)?;
            let mut rest = Parts { parts, offset: from.offset() };
            return Ok(Self { at, change: OutlineChange::Put(rest.documents(heads)?) });
        }
        // The others are one part, without documents.
        match LibraryEntry::decode(first)? {
            LibraryEntry::DocumentsDeleted { at, unit: _, documents } => {
                Ok(Self { at, change: OutlineChange::Deleted(documents) })
            }
            LibraryEntry::Batch { at, note } => Ok(Self { at, change: OutlineChange::Batch(note) }),
            LibraryEntry::FieldChanged { at, field } => {
                Ok(Self { at, change: OutlineChange::Field(field) })
            }
            LibraryEntry::QueriesMatched(matched) => {
                Ok(Self { at: matched.at, change: OutlineChange::Matched(matched) })
            }
            LibraryEntry::DocumentsPut { .. } => Err(from.error("an entry without documents")),
        }
    }
}

/// What is left of an entry.
struct Parts<'a> {
    parts: &'a [Bytes],
    /// In the first of them.
    offset: usize,
}

impl<'a> Parts<'a> {
    fn documents(&mut self, heads: documents::Heads) -> Result<Vec<PutOutline>, DecodeError> {
        let mut replaced = heads.replaced.into_iter().peekable();
        let mut outlines = Vec::with_capacity(heads.documents.len());
        for (at, head) in heads.documents.iter().enumerate() {
            let (title, chunks) = body::outline(self.take(head.body_bytes)?)?;
            if chunks.len() != head.chunks {
                return Err(DecodeError { what: "a chunk for each row", offset: self.offset });
            }
            self.take(head.vector_bytes(heads.dimension))?;
            let replaced = replaced.next_if(|replaced| replaced.document as usize == at);
            let replaced = replaced.map(|replaced| replaced.chunks);
            outlines.push(PutOutline { id: head.id, title, chunks, replaced });
        }
        Ok(outlines)
    }

    /// The next bytes, which do not reach over the end of a part.
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        while let [first, rest @ ..] = self.parts
            && self.offset == first.len()
            && !rest.is_empty()
        {
            *self = Self { parts: rest, offset: 0 };
        }
        let ends = DecodeError { what: "a document's bytes", offset: self.offset };
        let part = self.parts.first().ok_or_else(|| ends.clone())?;
        let end = self.offset.checked_add(len).ok_or_else(|| ends.clone())?;
        let taken = part.get(self.offset..end).ok_or(ends)?;
        self.offset = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Chunk, Custom, Document, DocumentMetadata};
    use crate::entry::Replaced;
    use crate::record::DocumentRecord;

    fn record(n: u8, chunks: u8) -> DocumentRecord {
        let mut custom = Custom::new();
        custom.insert("n".into(), n.into());
        let at = Timestamp::from_micros(i64::from(n));
        let chunk = |k: u8| Chunk {
            id: ChunkId::from_bytes([n + k; 16]),
            text: "x".repeat(usize::from(k)),
            embedding: vec![1.0, f32::from(k)],
            created_at: at,
            page_number: (k == 2).then_some(3),
            custom: if k == 1 { custom.clone() } else { Custom::new() },
        };
        let metadata = DocumentMetadata {
            title: format!("title {n}"),
            author: (n == 1).then(|| "somebody".into()),
            document_type: "text".into(),
            source_url: None,
            tags: vec!["a".into(); usize::from(n)],
            custom: custom.clone(),
            created_at: at,
        };
        let id = DocumentId::from_bytes([n; 16]);
        DocumentRecord::new(
            &Document { id, metadata, chunks: (1..=chunks).map(chunk).collect() },
            2,
        )
        .unwrap()
    }

    #[test]
    fn an_outline_is_the_same_from_parts_and_from_the_whole() {
        let gone = vec![ChunkId::from_bytes([9; 16])];
        let entry = LibraryEntry::DocumentsPut {
            at: Timestamp::from_micros(5),
            unit: None,
            documents: vec![record(1, 2), record(2, 1), record(3, 3)],
            replaced: vec![Replaced { document: 1, chunks: gone.clone() }],
        };
        let parts = entry.encode();
        let outline = LibraryOutline::read(&parts).unwrap();
        let whole = Bytes::from(parts.concat());
        assert_eq!(LibraryOutline::read(std::slice::from_ref(&whole)).unwrap(), outline);
        let OutlineChange::Put(documents) = outline.change else { panic!("a put") };
        assert_eq!(documents.len(), 3);
        assert_eq!(documents[1].title, "title 2");
        assert_eq!(documents[1].replaced, Some(gone));
        assert_eq!((&documents[0].replaced, &documents[2].replaced), (&None, &None));
        let ids = [4, 5, 6].map(|n| ChunkId::from_bytes([n; 16]));
        assert_eq!(documents[2].chunks, ids);
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            assert!(LibraryOutline::read(&[cut]).is_err(), "{len}");
        }
    }
}
