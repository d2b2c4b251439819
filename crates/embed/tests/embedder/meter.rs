//! Who pays for what: tokens as the provider counts them, divided among those who shared a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrwdb_embed::{
    CacheConfig, CallError, CohereVersion, EmbedConfig, EmbedError, InputType, Meter,
    ProviderAnswer, Retry, Usage,
};
use parking_lot::Mutex;

use crate::support::{LONG, Reply, Stand, Told, cohere, custom, openai, remote, texts};

#[derive(Debug, Default)]
struct Bill {
    used: Mutex<Usage>,
    forbidden: AtomicBool,
}

impl Meter for Bill {
    fn used(&self, usage: Usage) {
        let mut used = self.used.lock();
        used.texts += usage.texts;
        used.tokens += usage.tokens;
        used.cached_texts += usage.cached_texts;
        used.cached_tokens += usage.cached_tokens;
    }

    fn may_call(&self) -> bool {
        !self.forbidden.load(Ordering::Relaxed)
    }
}

impl Bill {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn sum(&self) -> Usage {
        *self.used.lock()
    }
}

fn used(texts: u64, tokens: u64) -> Usage {
    Usage { texts, tokens, ..Usage::default() }
}

#[tokio::test]
async fn the_bill_is_of_the_providers_own_counts_and_hits_are_told_apart() {
    for (api, tokens) in [("cohere", 6), ("openai", 4)] {
        let stand = Stand::start(vec![]).await;
        let config = match api {
            "cohere" => cohere(&stand.url, CohereVersion::V2),
            _openai => openai(&stand.url, "text-embedding-3-small", None),
        };
        let cache = CacheConfig { memory_bytes_max: 1 << 20, ..CacheConfig::default() };
        let (embedder, _clock) = remote(EmbedConfig { cache, ..config }).await;
        let (model, bill) = (embedder.default_model(), Bill::new());
        let metered = embedder.metered(bill.clone());
        let embed = |texts| metered.embed(&model, InputType::Document, texts, LONG);
        embed(texts(["red apple", "blue sky"])).await.expect("vectors");
        assert_eq!(bill.sum(), used(2, tokens), "{api}");
        embed(texts(["red apple", "red apple", "new"])).await.expect("vectors");
        let hits = Usage { cached_texts: 2, cached_tokens: 6, ..used(3, tokens + tokens / 2) };
        assert_eq!(bill.sum(), hits, "{api}: nine bytes are about three tokens");
    }
}

#[tokio::test]
async fn a_shared_call_is_divided_and_its_sum_is_the_providers() {
    let (provider, mut calls) = Told::new(8);
    let embedder = custom(EmbedConfig::default(), provider).await;
    let (model, bills) = (embedder.default_model(), [Bill::new(), Bill::new(), Bill::new()]);
    let [first, short, long] = bills.clone().map(|bill| embedder.metered(bill));
    let embed = |meter, text: &str| {
        let texts = vec![text.to_owned()];
        let (embedder, model): (arrwdb_embed::Metered<'_>, _) = (meter, &model);
        async move { embedder.embed(model, InputType::Document, texts, LONG).await }
    };
    let long_text = "x".repeat(36);
    let (one, two, three, ()) =
        tokio::join!(embed(first, "first"), embed(short, "abcd"), embed(long, &long_text), async {
            let running = calls.recv().await.expect("a call");
            assert_eq!(running.texts.len(), 1);
            running.finish();
            let together = calls.recv().await.expect("a call");
            assert_eq!(together.texts.len(), 2, "both wait and are called together");
            together.finish();
        });
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    // Seven tokens each call, one and nine tokens by estimate.
    assert_eq!(bills.map(|bill| bill.sum()), [used(1, 7), used(1, 0), used(1, 7)]);
}

#[tokio::test]
async fn a_call_that_failed_costs_nothing_and_one_that_was_answered_does() {
    let refusal = Reply::Raw(400, vec![], r#"{"message":"bad text"}"#.to_owned());
    let stand = Stand::start(vec![refusal]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let (model, bill) = (embedder.default_model(), Bill::new());
    let metered = embedder.metered(bill.clone());
    metered.embed(&model, InputType::Query, texts(["a"]), LONG).await.expect_err("refused");
    assert_eq!(bill.sum(), Usage::default());
    let (provider, mut calls) = Told::new(8);
    let embedder = custom(EmbedConfig::default(), provider).await;
    let model = embedder.default_model();
    let metered = embedder.metered(bill.clone());
    // Paid for, though it is worth nothing.
    let work = metered.embed(&model, InputType::Query, texts(["a"]), LONG);
    let answer = async {
        let answer = ProviderAnswer { vectors: vec![vec![1.0; 3]], tokens: Some(5) };
        calls.recv().await.expect("a call").reply_with(Ok(answer));
    };
    let (failed, ()) = tokio::join!(work, answer);
    assert!(matches!(failed, Err(EmbedError::WrongDimension { .. })), "{failed:?}");
    assert_eq!(bill.sum(), used(1, 5));
    let work = metered.embed(&model, InputType::Query, texts(["b"]), LONG);
    let answer = async {
        let error = CallError { error: EmbedError::Closed, retry: Retry::Never };
        calls.recv().await.expect("a call").reply_with(Err(error));
    };
    let (failed, ()) = tokio::join!(work, answer);
    assert_eq!((failed, bill.sum()), (Err(EmbedError::Closed), used(1, 5)));
}

#[tokio::test]
async fn a_count_that_cannot_be_is_not_believed() {
    let openai_says = |tokens: u64| {
        let usage = format!(r#"{{"total_tokens":{tokens}}}"#);
        format!(r#"{{"data":[{{"index":0,"embedding":[1.0,0.0]}}],"usage":{usage}}}"#)
    };
    let cohere_says = |tokens: u64| {
        let meta = format!(r#"{{"billed_units":{{"input_tokens":{tokens}}}}}"#);
        format!(r#"{{"embeddings":[[1.0,0.0]],"meta":{meta}}}"#)
    };
    // Nine bytes are about three tokens.
    for (said, counted) in [(0, 3), (u64::MAX, 3), (1_000_000, 3), (4, 4), (9, 9)] {
        let stand = Stand::start(vec![Reply::Raw(200, vec![], openai_says(said))]).await;
        let (embedder, _clock) = remote(openai(&stand.url, "a-model", Some(2))).await;
        let (model, bill) = (embedder.default_model(), Bill::new());
        let metered = embedder.metered(bill.clone());
        let work = metered.embed(&model, InputType::Query, texts(["red apple"]), LONG);
        assert!(work.await.is_ok());
        assert_eq!(bill.sum(), used(1, counted), "openai said {said}");
        let stand = Stand::start(vec![Reply::Raw(200, vec![], cohere_says(said))]).await;
        let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
        let (model, bill) = (embedder.default_model(), Bill::new());
        let metered = embedder.metered(bill.clone());
        // The vector is of the wrong dimension, which is paid for all the same.
        let work = metered.embed(&model, InputType::Query, texts(["red apple"]), LONG);
        work.await.expect_err("two values");
        assert_eq!(bill.sum(), used(1, counted), "cohere said {said}");
    }
}

#[tokio::test]
async fn one_who_left_pays_for_what_was_called() {
    let (provider, mut calls) = Told::new(8);
    let embedder = custom(EmbedConfig::default(), provider).await;
    let (model, bill) = (embedder.default_model(), Bill::new());
    let metered = embedder.metered(bill.clone());
    let call = {
        let work = metered.embed(&model, InputType::Query, texts(["a"]), LONG);
        tokio::select! {
            _answer = work => panic!("nobody answered"),
            call = calls.recv() => call.expect("a call"),
        }
    };
    call.finish();
    while bill.sum() == Usage::default() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bill.sum(), used(1, 7));
}

#[tokio::test]
async fn where_no_provider_may_be_called_the_cache_still_answers() {
    let mut stand = Stand::start(vec![]).await;
    let cache = CacheConfig { memory_bytes_max: 1 << 20, ..CacheConfig::default() };
    let config = EmbedConfig { cache, ..cohere(&stand.url, CohereVersion::V1) };
    let (embedder, _clock) = remote(config).await;
    let (model, bill) = (embedder.default_model(), Bill::new());
    let metered = embedder.metered(bill.clone());
    let embed = |texts| metered.embed(&model, InputType::Document, texts, LONG);
    embed(texts(["known"])).await.expect("a vector");
    stand.next().await;
    bill.forbidden.store(true, Ordering::Relaxed);
    embed(texts(["known"])).await.expect("a vector");
    assert_eq!(bill.sum().cached_texts, 1);
    for _again in 0..3 {
        assert_eq!(embed(texts(["known", "new"])).await, Err(EmbedError::NotAllowed));
    }
    stand.assert_quiet();
    assert_eq!(bill.sum().cached_texts, 1, "what is refused saves nothing");
    bill.forbidden.store(false, Ordering::Relaxed);
    embed(texts(["known", "new"])).await.expect("vectors");
    assert_eq!(bill.sum().cached_texts, 2);
}
