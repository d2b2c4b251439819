//! One call to a server that ranks passages, in the shapes that such servers speak.

use serde::{Deserialize, Serialize};

use super::{RerankConfig, RerankKind, RerankOpenError};
use crate::provider::CallError;
use crate::remote::{Endpoint, Unusable};

/// Bytes of an answer besides what it repeats of the passages.
const ANSWER_BYTES_MIN: usize = 1 << 20;

/// Where and how passages are ranked.
#[derive(Debug)]
pub(super) struct Wire {
    endpoint: Endpoint,
    kind: RerankKind,
    model: String,
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) scores: Vec<Scored>,
    /// Search units, as it billed them.
    pub(super) units: Option<f64>,
    /// Tokens, as it counted them.
    pub(super) tokens: Option<f64>,
}

/// A passage's score. Servers that name it otherwise name nothing else so.
#[derive(Debug, Deserialize)]
pub(super) struct Scored {
    pub(super) index: usize,
    #[serde(alias = "score")]
    pub(super) relevance_score: f64,
}

/// A body of every shape: what a server does not know is left out.
#[derive(Debug, Default, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_documents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    /// Voyage calls them data.
    #[serde(alias = "data")]
    results: Vec<Scored>,
    #[serde(default)]
    meta: Option<Meta>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(default)]
    billed_units: Option<BilledUnits>,
}

#[derive(Debug, Deserialize)]
struct BilledUnits {
    #[serde(default)]
    search_units: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    #[serde(default)]
    total_tokens: Option<f64>,
}

impl Wire {
    pub(super) fn new(
        config: &RerankConfig,
        http: reqwest::Client,
    ) -> Result<Self, RerankOpenError> {
        let kind = config.kind;
        let path = match kind {
            RerankKind::Cohere => "v2/rerank",
            RerankKind::Jina | RerankKind::Voyage => "v1/rerank",
            RerankKind::Tei => "rerank",
        };
        let credentials = config.api_key.as_ref().map(|key| ("Bearer", key));
        let endpoint = Endpoint::at(http, (&config.base_url, path), credentials);
        let endpoint = endpoint.map_err(|unusable| match unusable {
            Unusable::BaseUrl(reason) => RerankOpenError::BaseUrl { provider: kind, reason },
            Unusable::Key => RerankOpenError::Key { provider: kind },
        })?;
        Ok(Self { endpoint, kind, model: config.model.clone() })
    }

    /// Asks for the scores of `texts`, as many as there are.
    pub(super) async fn rank(&self, query: &str, texts: &[String]) -> Result<Answer, CallError> {
        // A byte of a text may be written as six (`\u0000`), by servers that repeat them.
        let repeated = texts.iter().map(|text| text.len().saturating_mul(6));
        let bytes_max = repeated.fold(ANSWER_BYTES_MIN, usize::saturating_add);
        let all = texts.len();
        let usual =
            Body { model: Some(&self.model), query, documents: Some(texts), ..Body::default() };
        let body = match self.kind {
            RerankKind::Cohere => Body { top_n: Some(all), ..usual },
            RerankKind::Jina => Body { top_n: Some(all), return_documents: Some(false), ..usual },
            RerankKind::Voyage => Body { top_k: Some(all), truncation: Some(true), ..usual },
            RerankKind::Tei => {
                let body =
                    Body { query, texts: Some(texts), truncate: Some(true), ..Body::default() };
                let scores = self.endpoint.post_within(&body, bytes_max).await?;
                return Ok(Answer { scores, units: None, tokens: None });
            }
        };
        let listed: Listed = self.endpoint.post_within(&body, bytes_max).await?;
        Ok(Answer {
            scores: listed.results,
            units: listed.meta.and_then(|meta| meta.billed_units?.search_units),
            tokens: listed.usage.and_then(|usage| usage.total_tokens),
        })
    }
}

/// The scores of `count` passages in their order; what is wrong with them, unless there is exactly
/// one finite score for each.
pub(super) fn in_order(scores: &[Scored], count: usize) -> Result<Vec<f64>, String> {
    let mut ordered: Vec<Option<f64>> = vec![None; count];
    for Scored { index, relevance_score } in scores {
        if !relevance_score.is_finite() {
            return Err(format!("its score of passage {index} is no finite number"));
        }
        let place = ordered.get_mut(*index);
        let place = place.ok_or_else(|| format!("it scored passage {index} of {count}"))?;
        if place.replace(*relevance_score).is_some() {
            return Err(format!("it scored passage {index} twice"));
        }
    }
    let scored = ordered.iter().flatten().count();
    let all: Option<Vec<f64>> = ordered.into_iter().collect();
    all.ok_or_else(|| format!("it scored {scored} of {count} passages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_passage_has_one_score_and_nothing_else_has() {
        let check = |scores: &[(usize, f64)], expected: Result<&[f64], &str>| {
            let scores: Vec<Scored> = scores
                .iter()
                .map(|&(index, relevance_score)| Scored { index, relevance_score })
                .collect();
            let found = in_order(&scores, 3);
            assert_eq!(found.as_deref(), expected.map_err(str::to_owned).as_deref(), "{scores:?}");
        };
        check(&[(2, 0.5), (0, -1.0), (1, 0.0)], Ok(&[-1.0, 0.0, 0.5]));
        check(&[(2, 0.5), (0, 0.1)], Err("it scored 2 of 3 passages"));
        check(&[], Err("it scored 0 of 3 passages"));
        check(&[(2, 0.5), (2, 0.5), (1, 0.0)], Err("it scored passage 2 twice"));
        check(&[(3, 0.5)], Err("it scored passage 3 of 3"));
        check(&[(usize::MAX, 0.5)], Err(&format!("it scored passage {} of 3", usize::MAX)));
        check(&[(1, f64::NAN)], Err("its score of passage 1 is no finite number"));
    }
}
