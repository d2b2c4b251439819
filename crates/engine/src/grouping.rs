//! What is found, document by document: as many documents as are wanted, each with its best passages.
//!
//! A search for passages is repeated, each time for more of them, until enough documents are among
//! them. That ends: all passages of all documents but the last wanted are a number that is known.

use std::collections::{HashMap, HashSet};

use arrwdb_state::limits::{CHUNKS_PER_DOCUMENT_MAX, K_MAX};
use arrwdb_state::{
    DocumentId, DocumentRows, Effort, Executor, Nearest, RowPlace, Selection, Tuning, View,
};

use crate::error::EngineError;
use crate::ranking::{Ranked, Ranking, Wanted, rank};
use crate::request::{Hit, Plan, SearchRequest, Signals};
use crate::scoring::{CANDIDATES_MAX, Scoring};

/// Most documents that passages are grouped by.
pub const GROUPS_MAX: usize = K_MAX;
/// Most passages of one group.
pub const GROUP_SIZE_MAX: usize = 10;
/// Passages of a group, where nothing else is said.
pub const GROUP_SIZE: usize = 3;
/// Passages that are looked for at first, at least: a few more cost next to nothing.
const DEPTH_MIN: usize = 100;
/// How many times as many are looked for next.
const DEEPER: usize = 4;
/// Passages beyond which every row is scored: walking structures that far takes longer.
const WALKED_MAX: usize = 4096;

/// How hits are grouped by their documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouping {
    /// How many passages a group has at most, 1 to [`GROUP_SIZE_MAX`].
    pub size: usize,
}

/// How many groups, and how large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) k: usize,
    pub(crate) size: usize,
}

impl Groups {
    /// Those that a request asks for.
    pub(crate) fn of(request: &SearchRequest) -> Option<Self> {
        request.grouping.map(|grouping| Self { k: request.k, size: grouping.size })
    }

    /// Passages that are looked for at first.
    pub(crate) fn depth(self) -> usize {
        self.k.saturating_mul(self.size).max(DEPTH_MIN)
    }
}

/// Refuses groups that have no meaning.
pub(crate) fn check_grouping(request: &SearchRequest) -> Result<(), EngineError> {
    let Some(Grouping { size }) = request.grouping else { return Ok(()) };
    let invalid =
        |field: &str, detail: String| Err(EngineError::Invalid { field: field.into(), detail });
    if !(1..=GROUP_SIZE_MAX).contains(&size) {
        let detail = format!("a group has {size} passages; it has to be 1 to {GROUP_SIZE_MAX}");
        return invalid("/group_size", detail);
    }
    if request.k > GROUPS_MAX {
        let detail = format!("k is {}; of groups it has to be 1 to {GROUPS_MAX}", request.k);
        return invalid("/k", detail);
    }
    let one_by_one = |by: &Scoring| matches!(by, Scoring::Diverse { .. });
    if request.rescoring.as_ref().is_some_and(|rescoring| one_by_one(&rescoring.by)) {
        let detail = "passages that are chosen to be unlike each other are not grouped".to_owned();
        return invalid("/group_by", detail);
    }
    Ok(())
}

/// Passages of the best documents. Where they are not scored anew, those of one document follow each
/// other, the document of the best first; otherwise all that were found, of enough documents.
pub(crate) fn rank_groups(
    view: &View,
    (wanted, among): (&Wanted<'_>, Option<&Selection>),
    (plan, groups): (Plan, Groups),
    executor: &dyn Executor,
) -> Result<(Vec<Ranked>, Plan), EngineError> {
    let anew = wanted.anew.is_some();
    let most = if anew {
        CANDIDATES_MAX.max(wanted.nearest.k)
    } else {
        (groups.k - 1) * CHUNKS_PER_DOCUMENT_MAX + 1
    };
    let (mut depth, mut spent) = (wanted.nearest.k, Effort::default());
    let by_words = matches!(wanted.ranking, Ranking::Keyword(_));
    let mut every_row = wanted.nearest.tuning.exact;
    let (found, plan, documents) = loop {
        every_row |= depth > WALKED_MAX;
        let round = deeper(wanted, depth, every_row);
        let (found, plan) = rank(view, (&round, among), plan.clone(), executor)?;
        add(&mut spent, plan.effort);
        let documents = documents(view, &found, groups.k)?;
        // A structure may miss rows that are there.
        let all = found.len() < depth;
        let certain = every_row || by_words || wanted.nearest.index.is_exact();
        if documents.len() == groups.k || (all && certain) || (!all && depth >= most) {
            break (found, Plan { effort: spent, ..plan }, documents);
        }
        if all {
            every_row = true;
        } else {
            depth = depth.saturating_mul(DEEPER).min(most);
        }
    };
    if anew {
        return Ok((found, plan));
    }
    let of_row = |row: &Ranked| Ok(view.document_rows(row.place)?.id);
    match wanted.ranking {
        Ranking::Vector | Ranking::Keyword(_) => {
            let rows = view.select_documents(&documents, among);
            let all = usize::try_from(rows.rows()).unwrap_or(usize::MAX);
            let wanted = deeper(wanted, all, true);
            let (mut best, last) = rank(view, (&wanted, Some(&rows)), plan.clone(), executor)?;
            add(&mut spent, last.effort);
            let ranks: HashMap<RowPlace, Signals> =
                found.iter().map(|row| (row.place, row.signals)).collect();
            for row in &mut best {
                // Ranks among these rows alone say nothing.
                row.signals = ranks.get(&row.place).copied().unwrap_or_default();
            }
            Ok((grouped(best, of_row, groups)?, Plan { effort: spent, ..plan }))
        }
        // What the two rankings come to is known of what both found, and of nothing else.
        Ranking::Hybrid(..) => Ok((grouped(found, of_row, groups)?, plan)),
    }
}

/// The same search for so many passages.
fn deeper<'a>(wanted: &Wanted<'a>, k: usize, every_row: bool) -> Wanted<'a> {
    let tuning = Tuning { exact: every_row, ..wanted.nearest.tuning };
    Wanted { nearest: Nearest { k, tuning, ..wanted.nearest }, ..wanted.clone() }
}

/// Adds what another round scored; how segments were searched is as the last one did.
fn add(spent: &mut Effort, round: Effort) {
    let (vectors, codes) = (spent.vectors + round.vectors, spent.codes + round.codes);
    *spent = Effort { vectors, codes, ..round };
}

/// The first `k` documents of what was found.
fn documents(view: &View, found: &[Ranked], k: usize) -> Result<Vec<DocumentRows>, EngineError> {
    let mut documents: Vec<DocumentRows> = Vec::new();
    let mut known = HashSet::new();
    for row in found {
        let document = view.document_rows(row.place)?;
        if known.insert(document.id) {
            documents.push(document);
        }
        if documents.len() == k {
            break;
        }
    }
    Ok(documents)
}

/// Hits that were scored anew, by their documents.
pub(crate) fn grouped_hits(hits: Vec<Hit>, groups: Groups) -> Result<Vec<Hit>, EngineError> {
    grouped(hits, |hit| Ok(hit.document_id), groups)
}

/// The best of each of the first documents, one document after the other; `found` is best first.
fn grouped<T>(
    found: Vec<T>,
    document: impl Fn(&T) -> Result<DocumentId, EngineError>,
    Groups { k, size }: Groups,
) -> Result<Vec<T>, EngineError> {
    let mut places: HashMap<DocumentId, usize> = HashMap::new();
    let mut groups: Vec<Vec<T>> = Vec::new();
    for row in found {
        let id = document(&row)?;
        if !places.contains_key(&id) && groups.len() < k {
            places.insert(id, groups.len());
            groups.push(Vec::with_capacity(size));
        }
        let Some(group) = places.get(&id).and_then(|place| groups.get_mut(*place)) else {
            continue;
        };
        if group.len() < size {
            group.push(row);
        }
    }
    Ok(groups.into_iter().flatten().collect())
}
