//! Passages ranked by a model: what is asked, what is believed of the answer, and what is bounded.

use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::http::{HttpOptions, ProxyUse, http_client};
use arrwdb_embed::{
    RerankConfig, RerankError, RerankKind, RerankLimits, RerankMeter, RerankOpenError, RerankPrice,
    RerankStats, RerankUsage, Reranker, Secret,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{Clock, KEY, ManualTimer, Reply, Stand, texts};

fn config(kind: RerankKind, url: &str) -> RerankConfig {
    RerankConfig { api_key: Some(Secret::new(KEY)), ..RerankConfig::new(kind, url.to_owned()) }
}

fn open(config: RerankConfig) -> Result<(Reranker, Arc<ManualTimer>), RerankOpenError> {
    let options = HttpOptions { proxy: ProxyUse::Never, ..HttpOptions::default() };
    let http = http_client(&options).expect("client");
    let clock = Clock::default();
    let timer = Arc::clone(&clock.0);
    let reranker = Reranker::open(config, http, (Arc::new(clock), Arc::new(|| u64::MAX / 2)))?;
    Ok((reranker, timer))
}

fn opened(config: RerankConfig) -> (Reranker, Arc<ManualTimer>) {
    open(config).expect("open")
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Told {
    used: Mutex<Vec<RerankUsage>>,
    refuses: bool,
}

impl RerankMeter for Told {
    fn used(&self, usage: RerankUsage) {
        self.used.lock().push(usage);
    }

    fn may_call(&self) -> bool {
        !self.refuses
    }
}

async fn check_shape(kind: RerankKind, path: &str, body: Value, used: RerankUsage) {
    let mut stand = Stand::start(vec![]).await;
    let (reranker, _clock) = opened(config(kind, &stand.url));
    let meter = Arc::new(Told::default());
    let scores = reranker.rerank("q", texts(["one", "three"]), Some(meter.clone())).await;
    assert_eq!(scores, Ok(vec![0.03, 0.05]), "{kind}");
    let seen = stand.next().await;
    assert_eq!((seen.path.as_str(), seen.body), (path, body));
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(*meter.used.lock(), [used], "{kind}");
    stand.assert_quiet();
}

#[tokio::test]
async fn every_server_is_asked_in_its_own_shape() {
    let passages = json!(["one", "three"]);
    let used = |tokens, cost| RerankUsage { passages: 2, tokens, cost };
    let body = json!({"model": "rerank-v3.5", "query": "q", "documents": passages, "top_n": 2});
    // A search unit is a fifth of a cent; tokens are estimated.
    check_shape(RerankKind::Cohere, "/v2/rerank", body, used(5, Some(2_000_000_000))).await;
    let body = json!({
        "model": "jina-reranker-v2-base-multilingual", "query": "q", "documents": passages, "top_n": 2,
        "return_documents": false,
    });
    check_shape(RerankKind::Jina, "/v1/rerank", body, used(20, None)).await;
    let body = json!({
        "model": "rerank-2.5", "query": "q", "documents": passages, "top_k": 2, "truncation": true,
    });
    check_shape(RerankKind::Voyage, "/v1/rerank", body, used(20, None)).await;
    let body = json!({"query": "q", "texts": passages, "truncate": true});
    check_shape(RerankKind::Tei, "/rerank", body, used(5, Some(0))).await;
}

#[tokio::test]
async fn a_small_server_is_asked_several_times_and_the_scores_stay_in_order() {
    let mut stand = Stand::start(vec![]).await;
    let (reranker, _clock) = opened(config(RerankKind::Tei, &stand.url));
    let long: Vec<String> = (1..=70).map(|length| "x".repeat(length)).collect();
    let scores = reranker.rerank("q", long, None).await.expect("scores");
    let expected: Vec<f64> = (1..=70).map(|length| f64::from(length) / 100.0).collect();
    assert_eq!(scores, expected);
    let mut sizes = Vec::new();
    for _call in 0..3 {
        sizes.push(stand.next().await.body["texts"].as_array().expect("texts").len());
    }
    stand.assert_quiet();
    sizes.sort_unstable();
    assert_eq!(sizes, [6, 32, 32]);
    let RerankStats { calls, passages, failures, waiting_bytes, .. } = reranker.stats();
    assert_eq!((calls, passages, failures, waiting_bytes), (3, 70, 0, 0));
    assert_eq!(reranker.rerank("q", Vec::new(), None).await, Ok(Vec::new()));
}

/// The outcome of two passages sent to a Cohere that answers with `reply`, which must be final.
async fn outcome(status: u16, body: &str) -> RerankError {
    let mut stand = Stand::start(vec![Reply::Raw(status, vec![], body.to_owned())]).await;
    let (reranker, _clock) = opened(config(RerankKind::Cohere, &stand.url));
    let failed = reranker.rerank("q", texts(["one", "two"]), None).await.expect_err("a failure");
    stand.next().await;
    stand.assert_quiet();
    assert!(!failed.to_string().contains(KEY) && !format!("{failed:?}{reranker:?}").contains(KEY));
    let RerankStats { calls, failures, retries, .. } = reranker.stats();
    assert_eq!((calls, failures, retries), (1, 1, 0));
    failed
}

fn provider(status: Option<u16>, detail: &str) -> RerankError {
    RerankError::Provider { status, detail: detail.to_owned() }
}

#[tokio::test]
async fn refusals_are_told_once_and_without_the_key() {
    let body = json!({"message": format!("invalid api token {KEY}")}).to_string();
    let failed = outcome(401, &body).await;
    assert_eq!(failed, provider(Some(401), "Unauthorized: invalid api token ***"));
    let failed = outcome(404, r#"{"message":"no such model"}"#).await;
    assert_eq!(failed, provider(Some(404), "Not Found: no such model"));
    let failed = outcome(422, r#"{"error":"too long","error_type":"Validation"}"#).await;
    assert_eq!(failed, provider(Some(422), "Unprocessable Entity: too long"));
}

#[tokio::test]
async fn an_answer_has_one_finite_score_for_every_passage() {
    let unexpected =
        |detail: &str| provider(None, &format!("its answer is not what was expected: {detail}"));
    let answered =
        async |results: Value| outcome(200, &json!({"results": results}).to_string()).await;
    let score = |index: u64| json!({"index": index, "relevance_score": 0.5});
    assert_eq!(answered(json!([score(0)])).await, unexpected("it scored 1 of 2 passages"));
    let twice = answered(json!([score(0), score(0), score(1)])).await;
    assert_eq!(twice, unexpected("it scored passage 0 twice"));
    let beyond = answered(json!([score(0), score(2)])).await;
    assert_eq!(beyond, unexpected("it scored passage 2 of 2"));
    for body in [
        r#"{"results":[{"index":0,"relevance_score":0.5},{"index":1,"relevance_score":NaN}]}"#,
        r#"{"results":[{"index":0,"relevance_score":0.5},{"index":1,"relevance_score":1e999}]}"#,
        r#"{"results":[{"index":0,"relevance_score":0.5},{"index":-1,"relevance_score":0.5}]}"#,
        r#"{"results":[{"index":0,"relevance_score":null}]}"#,
        "[0.5, 0.5]",
        r#"{"results":[{"index":0,"#,
        "",
    ] {
        let failed = outcome(200, body).await;
        let RerankError::Provider { status: Some(200), detail } = failed else {
            panic!("{body}: {failed:?}");
        };
        assert!(detail.starts_with("its answer is not what was expected: "), "{body}: {detail}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(2 << 20));
    let failed = outcome(200, &body).await;
    let RerankError::Provider { status: Some(200), detail } = failed else {
        panic!("{failed:?}");
    };
    assert!(detail.starts_with("its answer is larger than"), "{detail}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_later_each_time() {
    let error = || Reply::Raw(503, vec![], "busy".to_owned());
    let soon = Reply::Raw(429, vec![("retry-after", "1")], String::new());
    let mut stand = Stand::start(vec![error(), soon, error()]).await;
    let (reranker, timer) = opened(config(RerankKind::Cohere, &stand.url));
    let meter = Arc::new(Told::default());
    let ranking = reranker.rerank("q", texts(["one"]), Some(meter.clone()));
    let waits = async {
        // Half of each wait is certain, half of the rest is this test's chance.
        let second = Duration::from_secs(1);
        let mut waits = Vec::new();
        for range in [(125, 250), (1000, 1000), (500, 1000)] {
            let (least, most) = (Duration::from_millis(range.0), Duration::from_millis(range.1));
            waits.push(timer.pass_if(|wait| (least..=most).contains(&wait)).await);
        }
        assert_eq!(waits[1], second, "as long as the provider asked for");
    };
    let (scores, ()) = tokio::join!(ranking, waits);
    assert_eq!(scores, Ok(vec![0.03]));
    for _call in 0..4 {
        stand.next().await;
    }
    stand.assert_quiet();
    let RerankStats { calls, failures, retries, .. } = reranker.stats();
    assert_eq!((calls, failures, retries), (4, 3, 3));
    assert_eq!(meter.used.lock().len(), 1, "what failed costs nothing");
}

#[tokio::test]
async fn nobody_waits_beyond_the_deadline() {
    let late = Reply::Raw(429, vec![("retry-after", "60")], String::new());
    let stand = Stand::start(vec![late, Reply::Silence]).await;
    let (reranker, timer) = opened(config(RerankKind::Cohere, &stand.url));
    let failed = reranker.rerank("q", texts(["one"]), None).await;
    let retry_after = Duration::from_mins(1);
    assert_eq!(failed, Err(RerankError::RateLimited { retry_after }));
    let ranking = reranker.rerank("q", texts(["one"]), None);
    let deadline = RerankConfig::DEADLINE;
    let (failed, ()) = tokio::join!(ranking, timer.pass(deadline));
    assert_eq!(failed, Err(RerankError::Deadline { deadline }));
}

#[tokio::test]
async fn a_call_without_an_answer_is_tried_again_while_there_is_time() {
    let mut stand = Stand::start(vec![Reply::Silence]).await;
    let call_timeout = Duration::from_secs(3);
    let limits = RerankLimits { call_timeout, ..RerankLimits::default() };
    let (reranker, timer) =
        opened(RerankConfig { limits, ..config(RerankKind::Cohere, &stand.url) });
    let waits = async {
        // One that had not come there yet would leave its silence to the next.
        stand.next().await;
        timer.pass(call_timeout).await;
        timer.pass_if(|wait| wait < Duration::from_secs(1)).await;
    };
    let (scores, ()) = tokio::join!(reranker.rerank("q", texts(["one"]), None), waits);
    assert_eq!(scores, Ok(vec![0.03]));
    assert_eq!((reranker.stats().failures, reranker.stats().retries), (1, 1));
}

#[tokio::test]
async fn what_waits_is_bounded_and_is_given_back() {
    let mut stand = Stand::start(vec![Reply::Silence]).await;
    let limits = RerankLimits {
        calls_concurrent_max: 1,
        waiting_bytes_max: 4096,
        ..RerankLimits::default()
    };
    let (reranker, _timer) =
        opened(RerankConfig { limits, ..config(RerankKind::Cohere, &stand.url) });
    let first = tokio::spawn({
        let reranker = reranker.clone();
        async move { reranker.rerank("q", vec!["x".repeat(3000)], None).await }
    });
    stand.next().await;
    assert_eq!(reranker.stats().waiting_bytes, 3 << 10);
    let failed = reranker.rerank("q", vec!["x".repeat(2000)], None).await;
    assert!(matches!(failed, Err(RerankError::Busy { .. })), "{failed:?}");
    // One that fits waits for its turn; whoever leaves meanwhile is not asked for.
    let second = tokio::spawn({
        let reranker = reranker.clone();
        async move { reranker.rerank("q", vec!["y".to_owned()], None).await }
    });
    while reranker.stats().waiting_bytes < 4 << 10 {
        tokio::task::yield_now().await;
    }
    second.abort();
    assert!(second.await.expect_err("it was stopped").is_cancelled());
    reranker.close().await;
    assert_eq!(first.await.expect("it ends"), Err(RerankError::Closed));
    assert_eq!(reranker.rerank("q", texts(["z"]), None).await, Err(RerankError::Closed));
    while reranker.stats().waiting_bytes > 0 {
        tokio::task::yield_now().await;
    }
    stand.assert_quiet();
}

#[tokio::test]
async fn a_spent_budget_is_asked_before_the_provider_is_and_only_where_it_costs() {
    let mut stand = Stand::start(vec![]).await;
    let (reranker, _timer) = opened(config(RerankKind::Cohere, &stand.url));
    let refusing = Arc::new(Told { refuses: true, ..Told::default() });
    let failed = reranker.rerank("q", texts(["one"]), Some(refusing.clone())).await;
    assert_eq!(failed, Err(RerankError::NotAllowed));
    stand.assert_quiet();
    let price = RerankPrice::read(RerankKind::Cohere, "0");
    let free = RerankConfig { price, ..config(RerankKind::Cohere, &stand.url) };
    let (reranker, _timer) = opened(free);
    reranker.rerank("q", texts(["one"]), Some(refusing)).await.expect("scores");
    stand.next().await;
}

#[tokio::test]
async fn a_count_that_cannot_be_is_not_believed() {
    let answer = |units: f64| {
        let results = json!([{"index": 0, "relevance_score": 0.5}]);
        let meta = json!({"billed_units": {"search_units": units}});
        Reply::Raw(200, vec![], json!({"results": results, "meta": meta}).to_string())
    };
    let stand = Stand::start(vec![answer(2.0), answer(0.0), answer(1e9)]).await;
    let (reranker, _timer) = opened(config(RerankKind::Cohere, &stand.url));
    let meter = Arc::new(Told::default());
    for _call in 0..3 {
        let scores = reranker.rerank("q", vec!["x".repeat(600)], Some(meter.clone())).await;
        assert_eq!(scores, Ok(vec![0.5]));
    }
    let costs: Vec<_> = meter.used.lock().iter().map(|used| used.cost).collect();
    assert_eq!(costs, [Some(4_000_000_000), Some(2_000_000_000), Some(2_000_000_000)]);
}

#[test]
fn what_cannot_be_called_is_told_at_the_start() {
    let failed = open(config(RerankKind::Tei, "no place")).expect_err("no URL");
    assert!(failed.to_string().starts_with("the reranking provider tei has no usable URL: "));
    let key = Some(Secret::new("a\nb"));
    let failed = open(RerankConfig { api_key: key, ..config(RerankKind::Jina, "http://h") });
    assert_eq!(failed.expect_err("no key"), RerankOpenError::Key { provider: RerankKind::Jina });
}
