//! What a search finds, a page after the other.
//!
//! A page is of the library as it was for the first one, and begins behind the last row of the one
//! before. It is found by a search for all rows up to its end; where that row is, the page begins. Rows
//! are in one order, by score and then as they came, which depends neither on how many are asked for nor on
//! how the library lies in its files, so that no row comes twice, and none is missing that a search finds.
//!
//! - A walk through an index may find, for a later page, a row that belongs to an earlier one: it is left
//!   out, as it would have been left out by one search for everything. Where it does not find the last
//!   row of the page before any more, rows are taken that come behind it in that order.
//! - What a hybrid search fuses are the best [`HYBRID_ROWS_MAX`] of both rankings, on every page the same.
//!   Their scores hang together, so that a walk that finds others may change the order: what came on
//!   earlier pages is known by itself, and left out.

use std::collections::HashSet;

use arrwdb_state::limits::K_STREAM_MAX;
use arrwdb_state::{DocumentId, Executor, Language, Nearest, RowPlace, Selection, View};
use sha2::{Digest, Sha256};

use crate::error::EngineError;
use crate::ranking::{Ranked, Ranking, Wanted, rank};
use crate::request::{Hit, Mode, Plan};

/// Rows of all pages of a search.
pub const PAGED_ROWS_MAX: usize = K_STREAM_MAX;
/// Rows of all pages of a hybrid search.
pub const HYBRID_ROWS_MAX: usize = 1000;

/// Which page of what is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// Rows of the pages before.
    pub offset: usize,
    /// The last of them, by document and place in it; none on the first page.
    pub last: Option<(DocumentId, u32)>,
    /// Of a hybrid search, all of them, each by eight bytes of a digest of document and place.
    pub seen: Vec<u64>,
    /// What the words of the pages before were taken for: of another language, words find other rows
    /// in another order.
    pub language: Language,
}

/// Eight bytes that tell a row from others.
fn mark(document: DocumentId, index: u32) -> u64 {
    let mut hash = Sha256::new();
    hash.update(document.to_bytes());
    hash.update(index.to_le_bytes());
    let whole: [u8; 32] = hash.finalize().into();
    let (first, _rest) = whole.as_chunks::<8>();
    u64::from_le_bytes(first[0])
}

impl SearchPage {
    /// Rows of all pages of a search by this ranking.
    pub(crate) fn rows_max(ranking: &Ranking) -> usize {
        match ranking {
            Ranking::Vector | Ranking::Keyword(_) => PAGED_ROWS_MAX,
            Ranking::Hybrid(..) => HYBRID_ROWS_MAX,
        }
    }
}

/// The rows of a page, and whether there are more behind it.
pub(crate) fn rank_page(
    view: &View,
    (wanted, among): (&Wanted<'_>, Option<&Selection>),
    (plan, (page, k)): (Plan, (&SearchPage, usize)),
    executor: &dyn Executor,
) -> Result<(Vec<Ranked>, Plan), EngineError> {
    let search = |rows| {
        let nearest = Nearest { k: rows, ..wanted.nearest };
        let wanted = Wanted { nearest, ..wanted.clone() };
        rank(view, (&wanted, among), plan.clone(), executor)
    };
    let Nearest { query, metric, .. } = wanted.nearest;
    let distance = |place| Ok(view.distance(place, query, metric)?);
    let (ranked, plan, more) = paged(view, (page, k, wanted.ranking), search, distance)?;
    Ok((ranked, Plan { more, ..plan }))
}

/// The rows of a page of `k`, and whether there are more behind it. `search` finds the best so many rows.
fn paged(
    view: &View,
    (page, k, ranking): (&SearchPage, usize, &Ranking),
    mut search: impl FnMut(usize) -> Result<(Vec<Ranked>, Plan), EngineError>,
    distance: impl Fn(RowPlace) -> Result<f32, EngineError>,
) -> Result<(Vec<Ranked>, Plan, bool), EngineError> {
    let most = SearchPage::rows_max(ranking);
    let last = match page.last {
        None => None,
        Some((document, index)) => Some(view.row_of(document, index)?.ok_or_else(not_there)?),
    };
    // One more, to know whether there are more.
    let mut wanted = match ranking {
        Ranking::Vector | Ranking::Keyword(_) => page.offset.saturating_add(k + 1).min(most),
        Ranking::Hybrid(..) => most,
    };
    loop {
        let (found, plan) = search(wanted)?;
        let all = found.len() < wanted || wanted >= most;
        let mut rest = match (ranking, last) {
            (_, None) => found,
            (Ranking::Hybrid(..), Some(_)) => unseen(view, found, &page.seen)?,
            (Ranking::Vector, Some(last)) => behind(found, last, &distance)?,
            // What ended a page of words is found again: it has them.
            (Ranking::Keyword(_), Some(last)) => {
                let last = found.iter().position(|row| row.place == last).ok_or_else(not_there)?;
                found.into_iter().skip(last + 1).collect()
            }
        };
        if rest.len() > k || all {
            let left = most.saturating_sub(page.offset);
            let more = rest.len() > k && left > k;
            rest.truncate(k.min(left));
            return Ok((rest, plan, more));
        }
        wanted = wanted.saturating_mul(2).min(most);
    }
}

/// The rows behind one.
fn behind(
    mut found: Vec<Ranked>,
    last: RowPlace,
    distance: &impl Fn(RowPlace) -> Result<f32, EngineError>,
) -> Result<Vec<Ranked>, EngineError> {
    if let Some(at) = found.iter().position(|row| row.place == last) {
        return Ok(found.split_off(at + 1));
    }
    let far = distance(last)?;
    // Of those that are as far, the places say which come behind it.
    let order = |distance: f32, place: RowPlace| distance.total_cmp(&far).then(place.cmp(&last));
    found.retain(|row| row.distance.is_some_and(|distance| order(distance, row.place).is_gt()));
    Ok(found)
}

/// The rows that were on no page before.
fn unseen(view: &View, found: Vec<Ranked>, seen: &[u64]) -> Result<Vec<Ranked>, EngineError> {
    let seen: HashSet<u64> = seen.iter().copied().collect();
    let mut rest = Vec::with_capacity(found.len());
    for row in found {
        let (document, index) = view.owner_of(row.place)?;
        if !seen.contains(&mark(document, index)) {
            rest.push(row);
        }
    }
    Ok(rest)
}

fn not_there() -> EngineError {
    EngineError::Invalid {
        field: "/cursor".to_owned(),
        detail: "is of a passage that was not there: it is of another search".to_owned(),
    }
}

impl SearchPage {
    /// The page behind this one, of which these are the rows.
    pub(crate) fn next(mut self, hits: &[Hit], (mode, language): (Mode, Language)) -> Self {
        self.language = language;
        let row = |hit: &Hit| (hit.document_id, hit.chunk_index);
        self.offset += hits.len();
        self.last = hits.last().map(row).or(self.last);
        if mode == Mode::Hybrid {
            self.seen.extend(hits.iter().map(row).map(|(document, index)| mark(document, index)));
        }
        self
    }
}
