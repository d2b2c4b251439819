//! Searching a view by keywords: every segment by its postings, weighed by counts of the whole view.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};

use arrwdb_index::analysis::Language;
use arrwdb_index::keyword::{
    BestRows, Bm25, Clause, Collection, KeywordQuery, List, OwnedList, Postings, PostingsBuilder,
    SCORE_UNIT, Scored, Scorer, Visited, Wanted, What, matching, phrase_list, score_rows, search,
    side_by_side,
};
use arrwdb_index::{Allowed, Executor, RowSet};

use crate::body::BodyReader;
use crate::search::RowPlace;
use crate::segment::{Damage, Segment};
use crate::selection::Selection;
use crate::view::{SegmentView, View};

/// What two terms side by side are worth of what they are worth by themselves: a little, as in the
/// sequential dependence model of Metzler and Croft ("A Markov random field model for term
/// dependencies", 2005), measured on several judged collections (`docs/BENCHMARKS.md`).
const PAIR_PART: f32 = 0.2;
/// Rows that are looked at for terms side by side: as many for all searches of up to this many, so that
/// the first of them do not depend on how many are asked for.
const RESCORED_MIN: usize = 100;
/// Of more, only the best so many.
const RESCORED_MAX: usize = 1000;

/// What to find.
#[derive(Debug, Clone, Copy)]
pub struct Keywords<'a> {
    /// The words.
    pub query: &'a KeywordQuery,
    /// How many of the best.
    pub k: usize,
    /// How frequencies and lengths count.
    pub bm25: Bm25,
    /// Only those that a filter selected, in this same view.
    pub among: Option<&'a Selection>,
}

/// A row found. Of equal scores the row that came first is first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundByKeywords {
    /// BM25, from 0, and a fifth of what terms are worth that stand side by side as in the query.
    pub score: f32,
    /// Where it is.
    pub place: RowPlace,
}

/// What a search by keywords took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeywordEffort {
    /// (Row, term) pairs that were read.
    pub postings: u64,
    /// Rows that were scored.
    pub rows: u64,
    /// The terms that rank, and how many live rows have each.
    pub terms: Vec<(String, u64)>,
}

/// The terms of all rows of a segment: of their documents' titles and of their texts, taken for texts
/// of this language. O(bytes).
pub(crate) fn postings_of(segment: &Segment, language: Language) -> Result<Postings, Damage> {
    let mut builder = PostingsBuilder::new(language);
    for ordinal in 0..segment.documents() {
        let head = segment.head(ordinal)?;
        let body = BodyReader::new(segment.body(ordinal)?);
        let document = body.and_then(|body| body.document(head.id));
        let document = document.map_err(|error| segment.undecodable(&error))?;
        let title = &document.metadata.title;
        // A damaged document may have fewer chunks than rows.
        let chunks = document.chunks.iter().map(Some).chain(std::iter::repeat(None));
        for chunk in chunks.take(head.rows as usize) {
            builder.push(&[title, chunk.map_or("", |chunk| &chunk.text)]);
        }
    }
    Ok(builder.finish())
}

/// A segment with what a query finds in it.
struct Part<'a> {
    /// Its segment's place among the view's.
    place: usize,
    view: &'a SegmentView,
    postings: &'a Postings,
    /// Of each term of the query, and how many live rows have it.
    lists: Vec<(PartList<'a>, u64)>,
    /// Terms of live rows, without stop words.
    tokens: u64,
}

/// The rows of a term in a segment.
enum PartList<'a> {
    Kept(List<'a>),
    /// Made for a prefix or a phrase.
    Made(OwnedList),
    Nothing,
}

impl PartList<'_> {
    fn list(&self) -> Option<List<'_>> {
        match self {
            Self::Kept(list) => Some(*list),
            Self::Made(list) => Some(list.list()),
            Self::Nothing => None,
        }
    }
}

impl View {
    /// The best live rows by BM25 of their documents' titles and their texts, the best of them ranked
    /// anew by terms that stand side by side as in the query; descending by score, and what it took to find them. Makes the postings of segments that have none yet. At most
    /// O(rows that have one of the terms), less where few can be among the best.
    pub fn keywords(
        &self,
        wanted: Keywords<'_>,
        executor: &dyn Executor,
    ) -> Result<(Vec<FoundByKeywords>, KeywordEffort), Damage> {
        let (found, _others, effort) = self.keywords_of_pool(wanted, (wanted.k, &[]), executor)?;
        Ok((found, effort))
    }

    /// The same with terms side by side looked for among the best `pool` rows, however many are asked
    /// for (and always among the best `RESCORED_MIN`, of more than `RESCORED_MAX` among those): of
    /// one pool, what fewer give is where what more give begins. Besides, those of `others` that have one of
    /// the terms, with their scores, in any order: live rows, whether or not they are among the best.
    pub fn keywords_of_pool(
        &self,
        wanted: Keywords<'_>,
        (pool, others): (usize, &[RowPlace]),
        executor: &dyn Executor,
    ) -> Result<(Vec<FoundByKeywords>, Vec<FoundByKeywords>, KeywordEffort), Damage> {
        let pool = pool.clamp(RESCORED_MIN, RESCORED_MAX);
        let postings = self.postings(wanted.query.language, executor)?;
        let parts = each(self.segments.len(), executor, |place| {
            Ok(Part::new((place, &self.segments[place]), &postings[place], wanted.query))
        })?;
        let collection =
            Collection { rows: self.chunks, tokens: parts.iter().map(|part| part.tokens).sum() };
        let live: Vec<u64> = (0..wanted.query.terms.len())
            .map(|term| parts.iter().map(|part| part.lists[term].1).sum())
            .collect();
        let weights: Vec<f32> = (wanted.query.terms.iter().zip(&live))
            .map(|(term, live)| collection.weight(*live) * term.count as f32)
            .collect();
        // More than asked for, where terms side by side may lift some above others.
        let first = if wanted.query.pairs.is_empty() { wanted.k } else { wanted.k.max(pool) };
        let searched = each(parts.len(), executor, |place| {
            let mut best = BestRows::new(first);
            let visited = parts[place].search(wanted, (&weights, collection), &mut best);
            Ok((best, visited))
        })?;
        let (mut best, mut all) = (BestRows::new(first), Visited::default());
        for (part, visited) in searched {
            best.merge(part);
            all.add(visited);
        }
        let mut found = best.into_sorted();
        let pooled = found.len().min(pool);
        rescore(&parts, wanted, (collection, &live), &mut found[..pooled]);
        found.truncate(wanted.k);
        let mut others = scores_of(&parts, wanted, (&weights, collection), others);
        rescore(&parts, wanted, (collection, &live), &mut others);
        let told = |found: Vec<(u32, RowPlace)>| {
            let score = |score: u32| score as f32 / SCORE_UNIT as f32;
            let found = found.into_iter();
            found.map(|(it, place)| FoundByKeywords { score: score(it), place }).collect()
        };
        let name = |what: &What| match what {
            What::Term(term) => term.to_string(),
            What::Prefix(prefix) => format!("{}*", prefix.begin),
            What::Phrase(terms) => {
                let terms: Vec<&str> = terms.iter().map(|term| &*term.term).collect();
                format!("\"{}\"", terms.join(" "))
            }
        };
        let terms = wanted.query.terms.iter().map(|term| name(&term.what)).zip(live).collect();
        let effort = KeywordEffort { postings: all.postings, rows: all.rows, terms };
        Ok((told(found), told(others), effort))
    }
}

impl View {
    /// The live rows, of those selected if any are, that have what a query requires and nothing that it
    /// excludes. Makes postings as [`View::keywords`] does.
    pub fn having(
        &self,
        query: &KeywordQuery,
        among: Option<&Selection>,
        executor: &dyn Executor,
    ) -> Result<Selection, Damage> {
        let segments = each(self.segments.len(), executor, |place| {
            let view = &self.segments[place];
            let selected = among.map(|among| among.segment(place));
            let postings = view.segment.postings(query.language)?;
            Ok(rows_having(view, &postings, query, selected))
        })?;
        Ok(Selection::of(segments))
    }
}

impl View {
    /// How many live rows, of those selected if any are, a search for these words finds: that have one of
    /// them, what is required and nothing that is excluded. O(rows that have one).
    pub fn matching(
        &self,
        query: &KeywordQuery,
        among: Option<&Selection>,
        executor: &dyn Executor,
    ) -> Result<u64, Damage> {
        let postings = self.postings(query.language, executor)?;
        let counts = each(self.segments.len(), executor, |place| {
            let part = Part::new((place, &self.segments[place]), &postings[place], query);
            let mut rows = RowSet::empty(part.postings.rows());
            for list in part.lists.iter().filter_map(|(list, _live)| list.list()) {
                list.for_each(|row, _frequency| rows.insert(row..row + 1));
            }
            let selected = among.map(|among| among.segment(place));
            rows.intersect(&rows_having(part.view, part.postings, query, selected));
            Ok(u64::from(rows.count()))
        })?;
        Ok(counts.into_iter().sum())
    }

    /// The postings of every segment in a language, made where there are none.
    fn postings(
        &self,
        language: Language,
        executor: &dyn Executor,
    ) -> Result<Vec<Arc<Postings>>, Damage> {
        each(self.segments.len(), executor, |place| self.segments[place].segment.postings(language))
    }
}

impl<'a> Part<'a> {
    fn new(
        (place, view): (usize, &'a SegmentView),
        postings: &'a Postings,
        query: &KeywordQuery,
    ) -> Self {
        let lists = query.terms.iter().map(|term| {
            let list = match &term.what {
                What::Term(term) => postings.list(term).map_or(PartList::Nothing, PartList::Kept),
                What::Prefix(prefix) => PartList::Made(postings.prefix_list(prefix)),
                What::Phrase(terms) => PartList::Made(phrase_list(postings, terms)),
            };
            let live = list.list().map_or(0, |list| live_rows(view, list));
            (list, live)
        });
        let lists = lists.collect();
        let dead = view.tombstones.runs().flat_map(|run| run.first..run.first + run.rows);
        let dead: u64 = dead.map(|row| u64::from(postings.length(row))).sum();
        Self { place, view, postings, lists, tokens: postings.tokens().saturating_sub(dead) }
    }

    /// The lists of the terms that it has, with their weights.
    fn scored(&self, weights: &[f32]) -> Vec<Scored<'_>> {
        (self.lists.iter().zip(weights))
            .filter_map(|((list, _live), weight)| {
                Some(Scored { list: list.list()?, weight: *weight })
            })
            .collect()
    }

    fn search(
        &self,
        wanted: Keywords<'_>,
        (weights, collection): (&[f32], Collection),
        best: &mut BestRows<RowPlace>,
    ) -> Visited {
        let Keywords { query, bm25, among, .. } = wanted;
        let selected = among.map(|among| among.segment(self.place));
        // Segments of a view are counted in 32 bits.
        let segment = u32::try_from(self.place).unwrap_or(u32::MAX);
        let key = |row| RowPlace { segment, row };
        let terms = &self.scored(weights);
        if !query.has_clauses() {
            let allowed = selected.map_or(&self.view.tombstones as &dyn Allowed, |rows| rows);
            return search(self.postings, Wanted { terms, allowed, bm25, collection }, best, key);
        }
        let rows = rows_having(self.view, self.postings, query, selected);
        let wanted = Wanted { terms, allowed: &rows, bm25, collection };
        search(self.postings, wanted, best, key)
    }
}

/// The live rows of a segment that have what the query requires and nothing that it excludes.
fn rows_having(
    view: &SegmentView,
    postings: &Postings,
    query: &KeywordQuery,
    selected: Option<&RowSet>,
) -> RowSet {
    let mut rows = selected.cloned().unwrap_or_else(|| {
        let mut live = RowSet::full(postings.rows());
        live.retain(&view.tombstones);
        live
    });
    let having = |clause: &Clause| matching(postings, clause);
    query.required.iter().for_each(|clause| rows.intersect(&having(clause)));
    for clause in &query.excluded {
        let mut others = having(clause);
        others.invert();
        rows.intersect(&others);
    }
    rows
}

/// The scores of those of some rows that have one of the terms, without what stands side by side.
fn scores_of(
    parts: &[Part<'_>],
    wanted: Keywords<'_>,
    (weights, collection): (&[f32], Collection),
    rows: &[RowPlace],
) -> Vec<(u32, RowPlace)> {
    let scorer = Scorer::new(wanted.bm25, collection);
    let mut places = rows.to_vec();
    places.sort_unstable();
    let mut scored = Vec::with_capacity(places.len());
    for places in places.chunk_by(|a, b| a.segment == b.segment) {
        let part = &parts[places[0].segment as usize];
        let rows: Vec<u32> = places.iter().map(|place| place.row).collect();
        let scores = score_rows(part.postings, &part.scored(weights), scorer, &rows);
        scored.extend(scores.into_iter().zip(places.iter().copied()));
    }
    scored.retain(|(score, _place)| *score > 0);
    scored
}

/// Adds to the scores of rows what terms of the query are worth that stand side by side in them too.
/// O(rows * pairs).
fn rescore(
    parts: &[Part<'_>],
    wanted: Keywords<'_>,
    (collection, live): (Collection, &[u64]),
    found: &mut [(u32, RowPlace)],
) {
    if wanted.query.pairs.is_empty() {
        return;
    }
    let scorer = Scorer::new(wanted.bm25, collection);
    // Every term of a pair ranks by itself too.
    let weight = |text: &str| {
        let mut terms = wanted.query.terms.iter().zip(live);
        let found =
            terms.find(|(term, _live)| matches!(&term.what, What::Term(it) if **it == *text));
        collection.weight(found.map_or(0, |(_term, live)| *live))
    };
    let pairs = wanted.query.pairs.iter();
    let weights = pairs.map(|(first, second)| PAIR_PART * (weight(first) + weight(second)));
    let weights: Vec<f32> = weights.collect();
    found.sort_unstable_by_key(|(_score, place)| *place);
    for rows in found.chunk_by_mut(|(_, a), (_, b)| a.segment == b.segment) {
        let postings = parts[rows[0].1.segment as usize].postings;
        let at: Vec<u32> = rows.iter().map(|(_score, place)| place.row).collect();
        for ((first, second), weight) in wanted.query.pairs.iter().zip(&weights) {
            let lists = postings.list(first).zip(postings.list(second));
            let Some(lists) = lists else { continue };
            side_by_side(lists, &at, |row, frequency| {
                let more = scorer.score(*weight, frequency, postings.length(at[row]));
                rows[row].0 = rows[row].0.saturating_add(more);
            });
        }
    }
    found.sort_unstable_by_key(|(score, place)| (Reverse(*score), *place));
}

/// How many live rows a list has. O(1) where nothing has died, else O(rows of the list).
fn live_rows(view: &SegmentView, list: List<'_>) -> u64 {
    if view.tombstones.dead() == 0 {
        return u64::from(list.rows());
    }
    let mut live = 0;
    list.for_each(|row, _frequency| live += u64::from(!view.tombstones.contains(row)));
    live
}

/// What `make` gives for each place, side by side.
pub(crate) fn each<T: Send + Sync>(
    count: usize,
    executor: &dyn Executor,
    make: impl Fn(usize) -> Result<T, Damage> + Sync,
) -> Result<Vec<T>, Damage> {
    let outcomes: Vec<_> = (0..count).map(|_place| OnceLock::new()).collect();
    executor.run(count, &|place| {
        // Every task runs once, so the place is free.
        let _already_set = outcomes[place].set(make(place));
    });
    outcomes.into_iter().filter_map(OnceLock::into_inner).collect()
}
