//! Which state a read asks for: `min_seq`, the header `X-Arrwdb-Seq`, `as_of`.

use arrwdb_engine::Moment;
use arrwdb_engine::state::Seq;
use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::envelope::SEQ_HEADER;
use crate::extract::{QueryPairs, query_fault};
use crate::json::{Read, Reader};
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
    /// With what a body asks for, whose `as_of` has to be the query string's if both are given.
    pub(crate) fn with_body(self, body: Moment) -> Result<Moment, Problem> {
        match (self.0.as_of, body.as_of) {
            (Some(in_query), Some(in_body)) if in_query != in_body => Err(Problem::field(
                "/as_of",
                format!("is {in_body}, but {in_query} in the query string; give one of them"),
            )),
            _one_at_most => Ok(self.or_body(body)),
        }
    }

    /// With what a body asks for, whose `as_of` wins over the query string. Both are waited for.
    pub(crate) fn or_body(self, body: Moment) -> Moment {
        let Moment { min_seq, as_of } = self.0;
        Moment { min_seq: min_seq.max(body.min_seq), as_of: body.as_of.or(as_of) }
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

/// Reads the value of `key` in a body, if it says which state is asked for. What is null leaves what
/// was there.
pub(crate) fn read_moment(r: &mut Reader<'_>, key: &str, moment: &mut Moment) -> Read<bool> {
    match key {
        "min_seq" => moment.min_seq = r.whole()?.map(Seq::new).or(moment.min_seq),
        "as_of" => moment.as_of = r.whole()?.map(Seq::new).or(moment.as_of),
        _other => return Ok(false),
    }
    Ok(true)
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
