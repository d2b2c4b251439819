//! Which state a read asks for: `min_seq`, the header `X-Arrwdb-Seq`, `as_of`.

use arrwdb_engine::Moment;
use arrwdb_engine::state::Seq;
use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::envelope::SEQ_HEADER;
use crate::extract::{QueryPairs, query_fault};
use crate::problem::Problem;

/// The state of a library that a read asks for: `?min_seq=` or the header `X-Arrwdb-Seq` (the
/// parameter wins), and `?as_of=`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At(pub(crate) Moment);

/// As [`At`], where there is no past to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinSeq(pub(crate) Option<Seq>);

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = QueryPairs::from_request_parts(parts, state).await?;
        let min_seq = min_seq(parts, &pairs)?;
        let as_of = match pairs.text("as_of") {
            None => None,
            Some(text) => Some(number("/query/as_of", text)?),
        };
        Ok(Self(Moment { min_seq, as_of }))
    }
}

impl At {
    /// With the `as_of` of a body, which has to be the query string's if both are given.
    pub(crate) fn with_body(self, as_of: Option<Seq>) -> Result<Moment, Problem> {
        match (self.0.as_of, as_of) {
            (Some(in_query), Some(in_body)) if in_query != in_body => Err(Problem::field(
                "/as_of",
                format!("is {in_body}, but {in_query} in the query string; give one of them"),
            )),
            (in_query, in_body) => Ok(Moment { as_of: in_body.or(in_query), ..self.0 }),
        }
    }

    /// With the `as_of` of a body that wins over the query string.
    pub(crate) fn or_body(self, as_of: Option<Seq>) -> Moment {
        Moment { as_of: as_of.or(self.0.as_of), ..self.0 }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MinSeq {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = QueryPairs::from_request_parts(parts, state).await?;
        if pairs.text("as_of").is_some() {
            // What is of now must not pass for the past.
            return Err(query_fault("as_of", "is not available here: this is not kept"));
        }
        Ok(Self(min_seq(parts, &pairs)?))
    }
}

fn min_seq(parts: &Parts, pairs: &QueryPairs) -> Result<Option<Seq>, Problem> {
    if let Some(text) = pairs.text("min_seq") {
        return number("/query/min_seq", text).map(Some);
    }
    let Some(value) = parts.headers.get(SEQ_HEADER) else { return Ok(None) };
    number("/header/X-Arrwdb-Seq", value.to_str().unwrap_or("?").trim()).map(Some)
}

fn number(pointer: &str, text: &str) -> Result<Seq, Problem> {
    let number = text.parse::<u64>().map_err(|_not_a_number| {
        Problem::field(pointer, "must be a sequence number as given by X-Arrwdb-Seq")
    })?;
    Ok(Seq::new(number))
}
