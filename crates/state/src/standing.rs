//! A standing query, and the document of the companion that holds it: its chunk's text and vector
//! are the query's, its title the name; threshold and filter are custom metadata.

use serde_json::json;

use crate::document::{Chunk, Custom, Document, DocumentMetadata};
use crate::filter::Filter;
use crate::ids::{ChunkId, QueryId, Seq, Timestamp};

const DOCUMENT_TYPE: &str = "standing-query";
const THRESHOLD: &str = "distance_threshold";
const FILTER: &str = "metadata_filter";
const SINCE: &str = "registered_at_seq";

/// A query that every new passage of a library is matched against.
#[derive(Debug, Clone, PartialEq)]
pub struct StandingQuery {
    /// Its id.
    pub id: QueryId,
    /// Its name, 1 to [`crate::limits::LIBRARY_NAME_CHARS_MAX`] characters; need not be unique.
    pub name: String,
    /// What it looks for in words, if it was given so.
    pub text: Option<String>,
    /// What it looks for, of the library's dimension. Empty where nobody asked for it.
    pub vector: Vec<f32>,
    /// Passages with `distance <= this` match.
    pub distance_threshold: f32,
    /// Which passages it is about.
    pub filter: Filter,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The record that registered it, if this is a later version of it: passages after that
    /// record are matched.
    pub since: Option<Seq>,
}

impl StandingQuery {
    /// The document that holds it.
    pub fn document(&self) -> Document {
        let mut custom = Custom::new();
        custom.insert(THRESHOLD.into(), json!(f64::from(self.distance_threshold)));
        if !self.filter.is_empty() {
            custom.insert(FILTER.into(), self.filter.source());
        }
        if let Some(since) = self.since {
            custom.insert(SINCE.into(), json!(since.get()));
        }
        let chunk = Chunk {
            id: ChunkId::from_bytes(self.id.to_bytes()),
            text: self.text.clone().unwrap_or_default(),
            embedding: self.vector.clone(),
            created_at: self.updated_at,
            page_number: None,
            custom: Custom::new(),
        };
        let metadata = DocumentMetadata {
            title: self.name.clone(),
            author: None,
            document_type: DOCUMENT_TYPE.into(),
            source_url: None,
            tags: Vec::new(),
            custom,
            created_at: self.created_at,
        };
        Document { id: self.id.document(), metadata, chunks: vec![chunk] }
    }

    /// The query that a document of a companion holds; `None` if it holds none.
    pub fn of_document(document: Document) -> Option<Self> {
        let Document { id, metadata, chunks } = document;
        let [chunk] = <[Chunk; 1]>::try_from(chunks).ok()?;
        let DocumentMetadata { title, document_type, mut custom, created_at, .. } = metadata;
        if document_type != DOCUMENT_TYPE {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was an f32 when it was written")]
        let distance_threshold = custom.get(THRESHOLD)?.as_f64()? as f32;
        let filter = match custom.remove(FILTER) {
            Some(source) => Filter::read_recorded(source).ok()?,
            None => Filter::default(),
        };
        let since = match custom.get(SINCE) {
            Some(since) => Some(Seq::new(since.as_u64()?)),
            None => None,
        };
        Some(Self {
            id: QueryId::from_bytes(id.to_bytes()),
            name: title,
            text: Some(chunk.text).filter(|text| !text.is_empty()),
            vector: chunk.embedding,
            distance_threshold,
            filter,
            created_at,
            updated_at: chunk.created_at,
            since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_as_it_was_written() {
        let mut filter = Custom::new();
        filter.insert("year".into(), json!(1998));
        for (since, threshold) in [(None, 0.1_f32), (Some(Seq::new(7)), f32::MIN_POSITIVE)] {
            let query = StandingQuery {
                id: QueryId::from_bytes([3; 16]),
                name: "a name".into(),
                text: since.map(|_seq| "words".into()),
                vector: vec![1.0, -2.5],
                distance_threshold: threshold,
                filter: Filter::read(serde_json::Value::Object(filter.clone())).unwrap(),
                created_at: Timestamp::from_micros(5),
                updated_at: Timestamp::from_micros(6),
                since,
            };
            assert_eq!(StandingQuery::of_document(query.document()), Some(query.clone()));
            let mut other = query.document();
            other.metadata.document_type = "text".into();
            assert_eq!(StandingQuery::of_document(other), None);
        }
    }
}
