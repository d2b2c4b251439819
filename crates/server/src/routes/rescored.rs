//! What searches that score anew have in common: what to find, how many candidates, and the run.

use std::time::Instant;

use arrwdb_engine::{CANDIDATES_MAX, EngineError, Query, Rescoring, Scoring, SearchAnswer};
use serde_json::{Number, Value};

use super::answers::milliseconds;
use super::requests::read_vector;
use super::search::Target;
use super::search_pages::refuse_paging;
use super::search_requests::{Wishes, read_query};
use crate::app::App;
use crate::json::{Read, Reader};
use crate::principal::Principal;
use crate::problem::Problem;

/// What to find, by words, by a vector, or by both; and what else a search may ask for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    query: Option<String>,
    embedding: Option<Vec<f32>>,
    candidates: Option<usize>,
    pub(super) wishes: Wishes,
}

impl Asked {
    /// Reads the value of `key`.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str, app: &App) -> Read<()> {
        let limits = &app.config().limits;
        match key {
            "query" => self.query = read_query(r, limits.query_chars_max)?,
            "embedding" => self.embedding = read_vector(r)?,
            "candidates" => self.candidates = read_candidates(r)?,
            key if refuse_paging(r, key)? => {}
            key => self.wishes.read(r, key, limits.k_max)?,
        }
        Ok(())
    }

    /// Notes what is missing.
    pub(super) fn require(&self, r: &mut Reader<'_>) {
        let given = self.query.is_some() || self.embedding.is_some();
        r.require("query", given || r.has_fault_at("query") || r.has_fault_at("embedding"));
    }

    /// Notes that the words are missing, where a vector is not enough.
    pub(super) fn require_words(&self, r: &mut Reader<'_>) {
        r.require("query", self.query.is_some() || r.has_fault_at("query"));
    }

    /// The words to find.
    pub(super) fn words(&self) -> &str {
        self.query.as_deref().unwrap_or_default()
    }

    /// What to find, with the vector where one is given, and the wishes.
    pub(super) fn finish(self, by: Scoring) -> (Query, Wishes, Rescoring) {
        let rescoring = Rescoring { by, candidates: self.candidates };
        let query = match (self.embedding, &self.query) {
            (Some(vector), _) => Query::Vector(vector),
            (None, query) => Query::Text(query.clone().unwrap_or_default()),
        };
        (query, self.wishes.with_words(self.query), rescoring)
    }
}

fn read_candidates(r: &mut Reader<'_>) -> Read<Option<usize>> {
    let Some(candidates) = r.whole()? else { return Ok(None) };
    let within = usize::try_from(candidates).ok().filter(|it| (1..=CANDIDATES_MAX).contains(it));
    if within.is_none() {
        r.fault(format!("must be from k to {CANDIDATES_MAX}"));
    }
    Ok(within)
}

/// Searches, and scores anew what was found; the answer, and how long it took in milliseconds.
pub(super) async fn run(
    app: &App,
    principal: Principal,
    target: &Target,
    (query, wishes, rescoring): (Query, &Wishes, Rescoring),
) -> Result<(SearchAnswer, f64), Problem> {
    let started = Instant::now();
    wishes.check()?;
    let at = target.at.with_body(wishes.moment())?;
    let mut request = wishes.request(query, target.include_embeddings);
    request.rescoring = Some(rescoring);
    let answer = app.engine().search(principal.tenant, target.library, request, at).await;
    let answer = answer.map_err(|error: EngineError| Problem::from(error))?;
    let taken = started.elapsed();
    app.metrics().searched(target.library, answer.index.name(), taken, answer.hits.len());
    Ok((answer, milliseconds(taken)))
}

/// A number as JSON: `30` rather than `30.0`.
pub(super) fn plain(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and within what f64 counts exactly"
    )]
    let whole = (number.fract().abs() < f64::MIN_POSITIVE && number.abs() < 9e15)
        .then(|| Number::from(number as i64));
    whole.or_else(|| Number::from_f64(number)).map_or(Value::Null, Value::Number)
}

/// A JSON Pointer to the member `name` of what `parent` points to.
pub(super) fn beneath(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}
