//! The model that ranks passages, as the settings describe it.

use std::sync::Arc;

use arrwdb_engine::embed::{
    Random, RerankConfig, RerankKind, RerankPrice, Reranker, Secret, TokioTimer,
};

use crate::config::Config;
use crate::model::ModelError;

/// The model, where there is one. Asks nobody yet.
pub(crate) fn open(
    config: &Config,
    http: reqwest::Client,
    random: Random,
) -> Result<Option<Reranker>, ModelError> {
    let Some(settings) = settings(config)? else { return Ok(None) };
    let parts: (Arc<TokioTimer>, Random) = (Arc::new(TokioTimer::new()), random);
    Ok(Some(Reranker::open(settings, http, (parts.0, parts.1))?))
}

fn settings(config: &Config) -> Result<Option<RerankConfig>, ModelError> {
    let (written, embedding) = (&config.reranking, &config.embedding);
    let usual = embedding.cohere_api_key.as_ref().map(|_key| RerankKind::Cohere.name());
    let kind: RerankKind = match written.provider.as_deref().or(usual) {
        None | Some("none") => return Ok(None),
        Some(name) => name.parse()?,
    };
    let (is_cohere, elsewhere) = (kind == RerankKind::Cohere, written.url.is_some());
    // A key is for the server that it was given for, and no other.
    let cohere_key = embedding.cohere_api_key.as_ref().filter(|_key| is_cohere && !elsewhere);
    let key = written.api_key.as_ref().or(cohere_key);
    let place = match (&written.url, kind.usual_url()) {
        (Some(url), _) => url.clone(),
        (None, _) if is_cohere => embedding.cohere_url.clone(),
        (None, usual) => usual.unwrap_or_default().to_owned(),
    };
    let usual = RerankConfig::new(kind, place);
    let model = written.model.clone().unwrap_or(usual.model);
    let price = match &written.price {
        Some(text) => RerankPrice::read(kind, text),
        // What Cohere charges is not what another server does.
        None if is_cohere && elsewhere => None,
        None => RerankPrice::known(kind, &model),
    };
    Ok(Some(RerankConfig {
        api_key: key.map(|key| Secret::new(key.expose())),
        deadline: written.timeout,
        model,
        price,
        ..usual
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Sources;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<RerankConfig>, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources =
            Sources { environment: pairs.collect::<BTreeMap<_, _>>(), ..Sources::default() };
        let config = Config::load(&sources).map_err(|faults| faults.to_string())?;
        settings(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn coheres_key_is_enough_and_goes_nowhere_else() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("COHERE_API_KEY", "k"), ("RERANK_PROVIDER", "none")]), Ok(None));
        let cohere = [("COHERE_API_KEY", "k"), ("CO_API_URL", "http://c")];
        let config = read(&cohere).unwrap().unwrap();
        assert_eq!((config.kind, config.base_url.as_str()), (RerankKind::Cohere, "http://c"));
        assert_eq!(
            (config.model.as_str(), config.api_key),
            ("rerank-v3.5", Some(Secret::new("k")))
        );
        assert!(config.price.is_some());
        let elsewhere = [cohere[0], cohere[1], ("RERANK_URL", "http://own")];
        let config = read(&elsewhere).unwrap().unwrap();
        assert_eq!(
            (config.base_url.as_str(), config.api_key, config.price),
            ("http://own", None, None)
        );
        let tei = [cohere[0], ("RERANK_PROVIDER", "TEI"), ("RERANK_URL", "http://t")];
        let config = read(&tei).unwrap().unwrap();
        assert_eq!((config.kind, config.api_key), (RerankKind::Tei, None));
    }

    #[test]
    fn what_is_missing_is_said_at_the_start() {
        let check = |pairs: &[(&str, &str)], part: &str| {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check(&[("RERANK_PROVIDER", "tei")], "set RERANK_URL");
        check(&[("RERANK_PROVIDER", "jina"), ("COHERE_API_KEY", "k")], "set RERANK_API_KEY");
        check(&[("RERANK_PROVIDER", "cohere")], "COHERE_API_KEY");
        check(&[("RERANK_PROVIDER", "nobody")], "one of cohere, jina, voyage, tei, none");
        check(&[("RERANK_PRICE", "cheap")], "RERANK_PRICE is \"cheap\"");
        let priced =
            [("RERANK_PROVIDER", "jina"), ("RERANK_API_KEY", "k"), ("RERANK_PRICE", "0.02")];
        let config = read(&priced).unwrap().unwrap();
        assert_eq!(config.price, RerankPrice::read(RerankKind::Jina, "0.02"));
        assert_eq!(config.base_url, "https://api.jina.ai");
    }
}
