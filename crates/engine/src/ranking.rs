//! Finding passages in a view: by vectors, by keywords, or by both.

use std::time::Instant;

use arrwdb_state::{
    Bm25, Executor, Facet, Filter, FoundByKeywords, FoundPassage, KeywordEffort, KeywordQuery,
    Keywords, Language, Nearest, RowPlace, Selection, View, fragments, highlights,
};

use crate::counting::matches;
use crate::error::EngineError;
use crate::facets::facets_of;
use crate::fusion::{ByKeywords, CANDIDATES_MIN, Candidate, Fusion, candidates, fuse};
use crate::grouping::{Groups, rank_groups};
use crate::paging::{SearchPage, rank_page};
use crate::request::{Filtered, Highlight, Hit, KeywordPlan, Plan, Rescored, Signals};
use crate::rescoring::{Anew, rescore};

/// What passages are found by.
#[derive(Debug, Clone)]
pub(crate) enum Ranking {
    /// The nearest vectors.
    Vector,
    /// The best by keywords.
    Keyword(KeywordQuery),
    /// Both, fused; vectors weigh so much, from 0 to 1.
    Hybrid(KeywordQuery, Fusion, f64),
}

impl Ranking {
    /// The language of the words, if there are any.
    pub(crate) fn language(&self) -> Option<Language> {
        self.words().map(|words| words.language)
    }

    fn words(&self) -> Option<&KeywordQuery> {
        match self {
            Self::Vector => None,
            Self::Keyword(words) | Self::Hybrid(words, ..) => Some(words),
        }
    }
}

/// What every search asks for besides.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) ranking: &'a Ranking,
    /// Without a query, where only keywords are asked for.
    pub(crate) nearest: Nearest<'a>,
    pub(crate) filter: &'a Filter,
    pub(crate) vectors: bool,
    pub(crate) highlight: Option<&'a Highlight>,
    /// How what is found is scored anew, where it is.
    pub(crate) anew: Option<Anew<'a>>,
    /// Whose values are counted.
    pub(crate) facets: &'a [Facet],
    /// Which page of so many rows, where one is asked for.
    pub(crate) page: Option<(&'a SearchPage, usize)>,
    /// Whether it is counted how many match.
    pub(crate) count: bool,
    /// How what is found is grouped by documents, where it is.
    pub(crate) groups: Option<Groups>,
}

/// A row with what it is ranked by.
pub(crate) struct Ranked {
    pub(crate) place: RowPlace,
    pub(crate) distance: Option<f32>,
    pub(crate) score: f32,
    pub(crate) signals: Signals,
}

/// The best passages of a view, best first, and how they were found.
pub(crate) fn find(
    view: &View,
    wanted: &Wanted<'_>,
    executor: &dyn Executor,
) -> Result<(Vec<Hit>, Plan), EngineError> {
    let started = Instant::now();
    let selects = (!wanted.filter.is_empty()).then(|| view.select(wanted.filter, executor));
    let selection = selects.transpose()?;
    let filtered = selection.as_ref().map(|selection| Filtered {
        rows: selection.rows(),
        estimated_rows: selection.estimated_rows(),
        took: started.elapsed(),
    });
    let facets = facets_of(view, selection.as_ref(), wanted.facets, executor)?;
    let started = Instant::now();
    let plan = Plan { segments: view.segments().len(), filtered, facets, ..Plan::default() };
    let among = selection.as_ref();
    let (ranked, plan) = match (wanted.page, wanted.groups) {
        (Some(page), _) => rank_page(view, (wanted, among), (plan, page), executor)?,
        (None, Some(groups)) => rank_groups(view, (wanted, among), (plan, groups), executor)?,
        (None, None) => rank(view, (wanted, among), plan, executor)?,
    };
    let counts = (wanted, among, ranked.len());
    let matches = wanted.count.then(|| matches(view, counts, executor)).transpose()?;
    let plan = Plan { matches, ..plan };
    let finding = started.elapsed();
    let hits = match wanted.anew {
        None => ranked.iter().map(|row| read(view, row, wanted)).collect::<Result<_, _>>()?,
        Some(anew) => rescore(view, ranked, wanted, anew)?,
    };
    let reading = started.elapsed().saturating_sub(finding);
    Ok((hits, Plan { finding, reading, ..plan }))
}

pub(crate) fn rank(
    view: &View,
    (wanted, among): (&Wanted<'_>, Option<&Selection>),
    plan: Plan,
    executor: &dyn Executor,
) -> Result<(Vec<Ranked>, Plan), EngineError> {
    let nearest = Nearest { among, ..wanted.nearest };
    match wanted.ranking {
        Ranking::Vector => {
            let (found, effort) = view.nearest(nearest, executor)?;
            let ranked = (1..).zip(found).map(|(rank, found)| Ranked {
                place: found.place,
                distance: Some(found.distance),
                score: 1.0 - found.distance,
                signals: Signals { vector_rank: Some(rank), ..Signals::default() },
            });
            Ok((ranked.collect(), Plan { effort, ..plan }))
        }
        Ranking::Keyword(query) => {
            let pool = (wanted.page.map_or(nearest.k, |(_page, k)| k), [].as_slice());
            let words = Keywords { query, k: nearest.k, bm25: Bm25::default(), among };
            let (found, _others, keywords) = by_keywords(view, words, pool, executor)?;
            let ranked = (1..).zip(found).map(|(rank, found)| {
                let keyword = Some(ByKeywords { rank: Some(rank), score: found.score });
                Ranked {
                    place: found.place,
                    distance: None,
                    score: found.score,
                    signals: Signals { keyword, ..Signals::default() },
                }
            });
            Ok((ranked.collect(), Plan { keywords: Some(keywords), ..plan }))
        }
        Ranking::Hybrid(query, fusion, alpha) => {
            // A passage that is a little down in both lists may be among the best of both.
            let depth = CANDIDATES_MIN.max(nearest.k.saturating_mul(2));
            // What words are required or excluded holds for what vectors find too.
            let having = query.has_clauses().then(|| view.having(query, among, executor));
            let having = having.transpose()?;
            let among = having.as_ref().or(among);
            let nearest = Nearest { k: depth, among, ..nearest };
            let (found, effort) = view.nearest(nearest, executor)?;
            let near: Vec<_> = found.iter().map(|it| (it.place, it.distance)).collect();
            let places: Vec<_> = near.iter().map(|(place, _distance)| *place).collect();
            let words = Keywords { query, k: depth, bm25: Bm25::default(), among };
            let (best, others, keywords) = by_keywords(view, words, (depth, &places), executor)?;
            let scores = |found: &[FoundByKeywords]| -> Vec<_> {
                found.iter().map(|it| (it.place, it.score)).collect()
            };
            let distance = |place| view.distance(place, nearest.query, nearest.metric);
            let mut all = candidates(&near, (&scores(&best), &scores(&others)), distance)?;
            if let Some(most) = nearest.threshold {
                all.retain(|candidate| candidate.distance <= most);
            }
            let mut fused = fuse(all, *fusion, *alpha);
            fused.truncate(wanted.nearest.k);
            let ranked = fused.into_iter().map(|(score, candidate)| fused_row(score, &candidate));
            let fusion = Some((*fusion, *alpha));
            Ok((ranked.collect(), Plan { effort, keywords: Some(keywords), fusion, ..plan }))
        }
    }
}

fn fused_row(score: f64, candidate: &Candidate) -> Ranked {
    #[expect(clippy::cast_possible_truncation, reason = "a score of a few units at most")]
    let score = score as f32;
    let signals = Signals {
        vector_rank: candidate.vector_rank,
        keyword: candidate.keyword,
        fused: Some(candidate.parts),
    };
    Ranked { place: candidate.place, distance: Some(candidate.distance), score, signals }
}

fn by_keywords(
    view: &View,
    wanted: Keywords<'_>,
    pool: (usize, &[RowPlace]),
    executor: &dyn Executor,
) -> Result<(Vec<FoundByKeywords>, Vec<FoundByKeywords>, KeywordPlan), EngineError> {
    let started = Instant::now();
    let (found, others, effort) = view.keywords_of_pool(wanted, pool, executor)?;
    let KeywordEffort { postings, rows, terms } = effort;
    Ok((found, others, KeywordPlan { postings, rows, terms, took: started.elapsed() }))
}

fn read(view: &View, row: &Ranked, wanted: &Wanted<'_>) -> Result<Hit, EngineError> {
    Ok(hit((row, None), view.passage_of(row.place, wanted.vectors)?, wanted))
}

/// A row as it is answered.
pub(crate) fn hit(
    (row, rescored): (&Ranked, Option<Rescored>),
    passage: FoundPassage,
    wanted: &Wanted<'_>,
) -> Hit {
    let mut shown = Vec::new();
    if let (Some(style), Some(words)) = (wanted.highlight, wanted.ranking.words()) {
        let found = highlights(&passage.chunk.text, words);
        shown = fragments(&passage.chunk.text, &found, style);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score that is answered as it is elsewhere"
    )]
    let anew = |rescored: &Rescored| rescored.score.map_or(f32::NAN, |score| score as f32);
    Hit {
        document_id: passage.document_id,
        document: wanted.groups.map(|_groups| passage.document.clone()),
        document_title: passage.document.title.clone(),
        chunk: passage.chunk,
        chunk_index: passage.index,
        distance: row.distance,
        score: rescored.as_ref().map_or(row.score, anew),
        signals: row.signals,
        highlights: shown,
        rescored,
    }
}
