//! The projection of the log to events: pure, so that whoever reads a record sees the same events at
//! the same positions.
//!
//! A document's chunks come before the document itself, those that go before those that come: who
//! has seen an event of a document has seen all that belongs to it, and the event of a document that
//! was written alone stands at its record's own number.

use std::sync::Arc;

use arrwdb_engine::state::{
    CatalogEntry, DecodeError, DeletedDocument, IndexBuilt, IndexWork, Language, LibraryId,
    LibraryOutline, MatchedPassage, OutlineChange, PutOutline, Seq, TenantId, WorkEntry,
};

use bytes::Bytes;

use crate::cost_event::CostData;
use crate::event::{Changes, ChunkData, DocumentData, EventData, PassageData};
use crate::job_event::JobData;

/// The events of a record of the catalog; `None` if there are none. `tenant` says whose library it
/// is about, where the record does not.
pub(crate) fn of_catalog(
    seq: Seq,
    entry: &CatalogEntry,
    tenant: impl FnOnce(LibraryId) -> Option<TenantId>,
) -> Option<Changes> {
    let (library, owner, data) = match entry {
        // What holds a library's standing queries is nobody's library.
        CatalogEntry::LibraryCreated(spec) if !spec.is_whole() => return None,
        CatalogEntry::LibraryCreated(spec) => {
            let data = EventData::LibraryCreated {
                name: spec.name.as_str().into(),
                index_type: spec.index.structure.type_name(),
                embedding_dimension: spec.dimension,
            };
            (spec.id, Some(spec.tenant), data)
        }
        CatalogEntry::LibraryUpdated { id, at: _, name, description, language } => {
            let described = Some((name.as_str().into(), description.as_deref().map(Into::into)));
            let data = EventData::LibraryUpdated {
                described,
                language: language.map(Language::code),
                index_type: None,
                embedding: None,
                vector_field: None,
            };
            (*id, None, data)
        }
        CatalogEntry::LibraryDeleted { id, at: _, was } => {
            let name = was.as_ref().map(|was| was.name.as_str().into());
            let owner = was.as_ref().map(|was| was.tenant);
            (*id, owner, EventData::LibraryDeleted { name })
        }
        CatalogEntry::IndexChanged { id, at: _, index } => {
            let index_type = Some(index.structure.type_name());
            let data = EventData::LibraryUpdated {
                described: None,
                language: None,
                index_type,
                embedding: None,
                vector_field: None,
            };
            (*id, None, data)
        }
        CatalogEntry::IndexBuilt { id, at: _, built } => (*id, None, of_built(built)),
        CatalogEntry::GenerationActivated { id, at: _, generation: _, model, dimension } => {
            let embedding = Some((model.model.as_str().into(), *dimension));
            let data = EventData::LibraryUpdated {
                described: None,
                language: None,
                index_type: None,
                embedding,
                vector_field: None,
            };
            (*id, None, data)
        }
        CatalogEntry::GenerationPrepared { .. }
        | CatalogEntry::GenerationDiscarded { .. }
        | CatalogEntry::Purged { at: _ } => return None,
    };
    let tenant = owner.or_else(|| tenant(library))?;
    Some(changes(seq, (Some(library), tenant), entry.at(), vec![data]))
}

/// The events of a record of work; `None` if there are none.
pub(crate) fn of_work(seq: Seq, entry: &WorkEntry) -> Option<Changes> {
    if let WorkEntry::BudgetCrossed(crossed) = entry {
        let data = CostData::of(entry).into_iter().map(EventData::Cost).collect::<Vec<_>>();
        let scope = crossed.terms.scope;
        let place = (scope.library, scope.tenant);
        return (!data.is_empty()).then(|| changes(seq, place, entry.at(), data));
    }
    let job = JobData::of(entry)?;
    let place = (job.head.library, job.head.tenant);
    Some(changes(seq, place, entry.at(), vec![EventData::Job(Box::new(job))]))
}

/// The events of a record of a generation or of a companion; `None` if there are none. `told_as` says
/// which library a generation was at that record, if it was what the library was written to.
pub(crate) fn of_library(
    seq: Seq,
    (generation, tenant): (LibraryId, TenantId),
    outline: LibraryOutline,
    told_as: impl FnOnce(LibraryId) -> Option<LibraryId>,
) -> Option<Changes> {
    let mut data = Vec::new();
    let library = match &outline.change {
        OutlineChange::Matched(matched) => told_as(matched.library),
        // Standing queries that come and go: their document is no one's.
        _ if generation.is_companion() => None,
        OutlineChange::Put(_)
        | OutlineChange::Deleted(_)
        | OutlineChange::Field(_)
        | OutlineChange::Batch(_) => told_as(generation),
    }?;
    match outline.change {
        OutlineChange::Matched(matched) => {
            data.reserve_exact(matched.matches());
            matched.passages.into_iter().for_each(|passage| queries(passage, &mut data));
        }
        OutlineChange::Put(documents) => {
            let events = |document: &PutOutline| {
                1 + document.chunks.len() + document.replaced.as_ref().map_or(0, Vec::len)
            };
            data.reserve_exact(documents.iter().map(events).sum());
            for document in documents {
                put(document, &mut data);
            }
        }
        OutlineChange::Deleted(documents) => {
            for document in documents {
                deleted(document, &mut data);
            }
        }
        OutlineChange::Field(field) => {
            data.push(EventData::LibraryUpdated {
                described: None,
                language: None,
                index_type: None,
                embedding: None,
                vector_field: Some(field.name.into()),
            });
        }
        OutlineChange::Batch(note) => data.push(EventData::Batch(note)),
    }
    (!data.is_empty()).then(|| changes(seq, (Some(library), tenant), outline.at, data))
}

/// The events of a record.
///
/// # Errors
/// It was written by a newer release.
pub(crate) fn decode(parts: &[Bytes]) -> Result<LibraryOutline, DecodeError> {
    LibraryOutline::read(parts)
}

fn changes(
    seq: Seq,
    (library, tenant): (Option<LibraryId>, TenantId),
    at: arrwdb_engine::state::Timestamp,
    data: Vec<EventData>,
) -> Changes {
    let types = data.iter().map(EventData::event_type).collect();
    Changes { seq, at, library, tenant, data, types, durable_at: None }
}

fn of_built(built: &IndexBuilt) -> EventData {
    match built.work {
        IndexWork::Rebuild => EventData::IndexRebuilt {
            old_index_type: built.old.structure.type_name(),
            new_index_type: built.new.structure.type_name(),
            total_vectors: built.vectors,
        },
        IndexWork::Optimize => EventData::IndexOptimized {
            index_type: built.new.structure.type_name(),
            vectors_compacted: built.compacted,
            memory_freed_bytes: built.freed_bytes,
        },
    }
}

fn put(document: PutOutline, data: &mut Vec<EventData>) {
    let document_id = document.id;
    let updates = document.replaced.is_some();
    for chunk_id in document.replaced.unwrap_or_default() {
        data.push(EventData::ChunkDeleted(ChunkData { chunk_id, document_id }));
    }
    let num_chunks = count(document.chunks.len());
    for chunk_id in document.chunks {
        data.push(EventData::ChunkAdded(ChunkData { chunk_id, document_id }));
    }
    let document = DocumentData { document_id, title: document.title.into(), num_chunks };
    data.push(if updates {
        EventData::DocumentUpdated(document)
    } else {
        EventData::DocumentAdded(document)
    });
}

fn deleted(document: DeletedDocument, data: &mut Vec<EventData>) {
    let document_id = document.id;
    // A document has chunks, so where none are named they are unknown.
    let num_chunks = (!document.chunks.is_empty()).then(|| count(document.chunks.len()));
    for chunk_id in document.chunks {
        data.push(EventData::ChunkDeleted(ChunkData { chunk_id, document_id }));
    }
    let title = document.title.map(Into::into);
    data.push(EventData::DocumentDeleted { document_id, title, num_chunks });
}

fn queries(matched: MatchedPassage, data: &mut Vec<EventData>) {
    let passage = Arc::new(PassageData {
        document_id: matched.document,
        document_seq: matched.seq,
        chunk_id: matched.chunk,
        chunk_index: matched.chunk_index,
        passage: matched.passage.into(),
    });
    data.extend(matched.queries.into_iter().map(|query| EventData::QueryMatched {
        query_id: query.id,
        query_name: query.name,
        distance: query.distance,
        passage: passage.clone(),
    }));
}

fn count(chunks: usize) -> u32 {
    u32::try_from(chunks).unwrap_or(u32::MAX)
}
