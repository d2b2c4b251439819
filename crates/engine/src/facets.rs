//! Values of fields and how many have each: by themselves, or beside what a search finds.

use arrwdb_state::limits::COLUMNS_PER_SEGMENT_MAX;
use arrwdb_state::{
    Executor, Facet, FacetCounts, Filter, LibraryId, Selection, Seq, TenantId, View,
};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::moment::Moment;

/// The values of a library's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Faceted {
    /// Of each field that was asked for, in that order.
    pub facets: Vec<FacetCounts>,
    /// Documents that have a passage that passes.
    pub documents: u64,
    /// Passages that pass.
    pub chunks: u64,
    /// The state that this is true at.
    pub seq: Seq,
}

impl Engine {
    /// Counts the values of fields over the passages that pass a filter, all without one. Exact.
    pub async fn facets(
        &self,
        tenant: TenantId,
        library: LibraryId,
        (filter, facets): (Filter, Vec<Facet>),
        at: Moment,
    ) -> Result<Faceted, EngineError> {
        let selected = self.select(tenant, library, (filter, at)).await?;
        let permit = self.0.search_permit()?;
        let view = selected.snapshot().view.clone();
        let derived = view.derived_bytes();
        let count = move |executor: &dyn Executor| {
            let _permit = permit;
            let (view, selection) = (&selected.snapshot().view, selected.selection());
            let facets = facets_of(view, Some(selection), &facets, executor)?;
            let (documents, chunks) = (selected.documents(), selected.chunks());
            Ok(Faceted { facets, documents, chunks, seq: selected.snapshot().seq() })
        };
        let counted = self.0.pool.read(count).await?;
        self.0.weigh_again((tenant, library), &view, derived).await?;
        counted
    }
}

/// Refuses a field whose values a segment does not keep, since it has too many others.
pub(crate) fn check_has_column(
    view: &View,
    (name, place): (&str, &str),
    executor: &dyn Executor,
) -> Result<(), EngineError> {
    if view.has_column(name, executor)? {
        return Ok(());
    }
    let detail = format!(
        "the metadata of this library has more than {COLUMNS_PER_SEGMENT_MAX} different fields; the values of \
         `{name}` are not kept apart, so that they can be filtered by, but not counted or put in order"
    );
    Err(EngineError::Invalid { field: place.to_owned(), detail })
}

/// The values of fields of what a filter selected, or of everything.
pub(crate) fn facets_of(
    view: &View,
    selection: Option<&Selection>,
    facets: &[Facet],
    executor: &dyn Executor,
) -> Result<Vec<FacetCounts>, EngineError> {
    if facets.is_empty() {
        return Ok(Vec::new());
    }
    for facet in facets {
        check_has_column(view, (facet.field(), "/facets"), executor)?;
    }
    if let Some(selection) = selection {
        return Ok(view.facets(selection, facets, executor)?);
    }
    let all = view.select(&Filter::default(), executor)?;
    Ok(view.facets(&all, facets, executor)?)
}
