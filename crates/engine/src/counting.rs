//! How many passages match a search, of which it finds the best.

use arrwdb_state::{Executor, Selection, View};

use crate::error::EngineError;
use crate::paging::SearchPage;
use crate::ranking::{Ranking, Wanted};
use crate::request::Matches;

/// How many passages match, of which so many were found.
pub(crate) fn matches(
    view: &View,
    (wanted, among, found): (&Wanted<'_>, Option<&Selection>, usize),
    executor: &dyn Executor,
) -> Result<Matches, EngineError> {
    let exactly = |count| Matches { count, at_least: false };
    if let Ranking::Keyword(query) = wanted.ranking {
        return Ok(exactly(view.matching(query, among, executor)?));
    }
    if wanted.nearest.threshold.is_some() {
        let (before, k) = wanted.page.map_or((0, wanted.nearest.k), |(page, k)| (page.offset, k));
        let exact = wanted.nearest.tuning.exact || wanted.nearest.index.is_exact();
        let ended = before + found >= SearchPage::rows_max(wanted.ranking);
        let at_least = !exact || found >= k || ended || wanted.groups.is_some();
        return Ok(Matches { count: (before + found) as u64, at_least });
    }
    // Every passage has a distance; one that has what is excluded is not found for all that.
    let having = match wanted.ranking {
        Ranking::Hybrid(query, ..) if query.has_clauses() => {
            Some(view.having(query, among, executor)?)
        }
        Ranking::Vector | Ranking::Keyword(_) | Ranking::Hybrid(..) => None,
    };
    let rows = having.as_ref().or(among).map_or(view.chunks(), Selection::rows);
    Ok(exactly(rows))
}
