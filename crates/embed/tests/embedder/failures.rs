//! What providers do wrong, and what callers see of it.

use std::time::Duration;

use arrwdb_embed::deterministic::vector_of;
use arrwdb_embed::{CohereVersion, EmbedError, InputType, OpenError, ProviderKind};
use serde_json::json;

use crate::support::{KEY, LONG, Reply, Stand, cohere, openai, remote, texts};

/// The outcome of one text sent to a Cohere that answers with `reply`, which must be final.
async fn outcome(status: u16, body: &str) -> EmbedError {
    let mut stand = Stand::start(vec![Reply::Raw(status, vec![], body.to_owned())]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let failed = embedder
        .embed(&model, InputType::Query, texts(["one"]), LONG)
        .await
        .expect_err("a failure");
    stand.next().await;
    stand.assert_quiet();
    assert!(!failed.to_string().contains(KEY));
    assert!(!format!("{failed:?}").contains(KEY));
    let stats = embedder.stats();
    assert_eq!((stats.models[0].1.failures, stats.models[0].1.retries), (1, 0));
    failed
}

fn provider(status: Option<u16>, detail: &str) -> EmbedError {
    EmbedError::Provider { status, detail: detail.to_owned() }
}

#[tokio::test]
async fn a_refused_key_is_told_once_and_without_the_key() {
    let body = json!({"message": format!("invalid api token {KEY}")}).to_string();
    let failed = outcome(401, &body).await;
    assert_eq!(failed, provider(Some(401), "Unauthorized: invalid api token ***"));
}

#[tokio::test]
async fn requests_that_are_wrong_are_not_repeated() {
    let failed = outcome(400, r#"{"message":"no such model"}"#).await;
    assert_eq!(failed, provider(Some(400), "Bad Request: no such model"));
    let failed = outcome(404, "").await;
    assert_eq!(failed, provider(Some(404), "Not Found"));
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_a_failure() {
    let failed = outcome(200, r#"{"embeddings": [[1.0, "#).await;
    let EmbedError::Provider { status: Some(200), detail } = failed else {
        panic!("{failed:?}");
    };
    assert!(detail.starts_with("its answer is not what was expected: "), "{detail}");
}

#[tokio::test]
async fn e1_too_few_and_too_many_vectors_are_refused() {
    let two = json!({"embeddings": [vec![1.0; 1_024], vec![1.0; 1_024]]}).to_string();
    assert_eq!(outcome(200, &two).await, provider(None, "2 vectors came for 1 texts"));
    assert_eq!(
        outcome(200, r#"{"embeddings":[]}"#).await,
        provider(None, "0 vectors came for 1 texts")
    );
}

#[tokio::test]
async fn e1_vectors_of_another_dimension_are_refused() {
    let short = json!({"embeddings": [[1.0, 2.0]]}).to_string();
    assert_eq!(outcome(200, &short).await, EmbedError::WrongDimension { expected: 1_024, got: 2 });
}

#[tokio::test]
async fn e1_numbers_that_are_none_are_refused() {
    let mut values = vec!["0.5"; 1_024];
    let body = |values: &[&str]| format!(r#"{{"embeddings":[[{}]]}}"#, values.join(","));
    // JSON has no NaN: the whole answer is broken.
    values[7] = "NaN";
    assert!(matches!(
        outcome(200, &body(&values)).await,
        EmbedError::Provider { status: Some(200), .. }
    ));
    values[7] = "null";
    assert!(matches!(
        outcome(200, &body(&values)).await,
        EmbedError::Provider { status: Some(200), .. }
    ));
    // So it is of a number that is more than an f32 holds.
    values[7] = "1e39";
    assert!(matches!(
        outcome(200, &body(&values)).await,
        EmbedError::Provider { status: Some(200), .. }
    ));
    let zeros = vec!["0.0"; 1_024];
    assert_eq!(outcome(200, &body(&zeros)).await, EmbedError::NotFinite { index: 0 });
}

#[tokio::test]
async fn e1_a_broken_vector_names_its_text() {
    // A NaN in base64, for the second of the distinct texts, which is the third of the caller's.
    let body = json!({"data": [
        {"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": "AADAfw=="},
    ]});
    let stand = Stand::start(vec![Reply::Raw(200, vec![], body.to_string())]).await;
    let mut config = openai(&stand.url, "tiny", None);
    config.dimension = Some(1);
    let (embedder, _clock) = remote(config).await;
    let failed = embedder
        .embed(&embedder.default_model(), InputType::Query, texts(["a", "a", "b"]), LONG)
        .await;
    assert_eq!(failed, Err(EmbedError::NotFinite { index: 2 }));
}

#[tokio::test]
async fn openai_answers_with_strange_indexes_are_refused() {
    let check = async |indexes: [usize; 2], detail: &str| {
        let data: Vec<_> =
            indexes.iter().map(|index| json!({"index": index, "embedding": [1.0]})).collect();
        let body = json!({"data": data}).to_string();
        let stand = Stand::start(vec![Reply::Raw(200, vec![], body)]).await;
        let mut config = openai(&stand.url, "tiny", None);
        config.dimension = Some(1);
        let (embedder, _clock) = remote(config).await;
        let failed = embedder
            .embed(&embedder.default_model(), InputType::Query, texts(["a", "b"]), LONG)
            .await;
        assert_eq!(failed, Err(provider(None, detail)));
    };
    check([0, 0], "two vectors came for text 0").await;
    check([0, 2], "a vector came for text 2 of 2").await;
}

#[tokio::test]
async fn e2_a_rate_limit_is_waited_for_as_long_as_it_says() {
    let slow = Reply::Raw(429, vec![("retry-after", "7")], r#"{"message":"slow down"}"#.into());
    let mut stand = Stand::start(vec![slow]).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let work = embedder.embed(&model, InputType::Query, texts(["one"]), LONG);
    let told = async {
        stand.next().await;
        clock.pass(Duration::from_secs(7)).await;
        stand.next().await;
    };
    let (vector, ()) = tokio::join!(work, told);
    assert_eq!(vector.expect("a vector"), vector_of("one", 1_024));
    let stats = embedder.stats();
    let stats = &stats.models[0].1;
    assert_eq!((stats.calls, stats.failures, stats.retries), (2, 1, 1));
    assert_eq!(embedder.status().note, None);
}

#[tokio::test]
async fn e2_a_rate_limit_beyond_the_deadline_is_told_at_once() {
    let slow = Reply::Raw(429, vec![("retry-after", "3600")], String::new());
    let stand = Stand::start(vec![slow]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let failed =
        embedder.embed(&embedder.default_model(), InputType::Query, texts(["one"]), LONG).await;
    let retry_after = Duration::from_hours(1);
    assert_eq!(failed, Err(EmbedError::RateLimited { retry_after }));
}

#[tokio::test]
async fn e2_a_failing_server_is_tried_again_with_growing_waits() {
    let bad = |status| Reply::Raw(status, vec![], "upstream".to_owned());
    let mut stand = Stand::start(vec![bad(500), bad(503), bad(502)]).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V2)).await;
    let model = embedder.default_model();
    let work = embedder.embed(&model, InputType::Document, texts(["one"]), LONG);
    let told = async {
        let mut waits = Vec::new();
        for _ in 0..3 {
            stand.next().await;
            waits.push(clock.pass_if(|wait| wait < Duration::from_secs(10)).await);
        }
        stand.next().await;
        waits
    };
    let (vector, waits) = tokio::join!(work, told);
    assert_eq!(vector.expect("a vector"), vector_of("one", 1_024));
    // Half of 500 ms, of 1 s and of 2 s, and up to as much again at random.
    for (wait, full) in waits.iter().zip([500, 1_000, 2_000].map(Duration::from_millis)) {
        assert!((full / 2..full).contains(wait), "{wait:?} of {full:?}");
    }
}

#[tokio::test]
async fn e2_retries_end() {
    let bad = || Reply::Raw(503, vec![("retry-after", "1")], r#"{"message":"busy"}"#.into());
    let mut stand = Stand::start((0..9).map(|_| bad()).collect()).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let work = embedder.embed(&model, InputType::Document, texts(["one"]), LONG);
    let told = async {
        for _ in 0..4 {
            stand.next().await;
            clock.pass(Duration::from_secs(1)).await;
        }
        stand.next().await;
    };
    let (failed, ()) = tokio::join!(work, told);
    assert_eq!(failed, Err(provider(Some(503), "Service Unavailable: busy")));
    stand.assert_quiet();
    assert_eq!(
        embedder.status().note.as_deref(),
        Some("the embedding provider failed: Service Unavailable: busy")
    );
}

#[tokio::test]
async fn e2_a_silent_server_is_given_up_at_the_deadline() {
    let mut stand = Stand::start(vec![Reply::Silence]).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    // Longer than one call may take, and shorter than two.
    let deadline = Duration::from_secs(3);
    let work = embedder.embed(&model, InputType::Query, texts(["one"]), deadline);
    let told = async {
        stand.next().await;
        clock.pass(deadline).await;
    };
    let (failed, ()) = tokio::join!(work, told);
    assert!(
        matches!(failed, Err(EmbedError::Deadline { .. } | EmbedError::Provider { .. })),
        "{failed:?}"
    );
    assert_eq!(embedder.stats().queue_texts, 0);
}

#[tokio::test]
async fn e2_a_silent_call_is_repeated_while_time_is_left() {
    let mut stand = Stand::start(vec![Reply::Silence]).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let work = embedder.embed(&model, InputType::Query, texts(["one"]), LONG);
    let told = async {
        stand.next().await;
        clock.pass(Duration::from_secs(30)).await;
        clock.pass_if(|wait| wait < Duration::from_secs(1)).await;
        stand.next().await;
    };
    let (vector, ()) = tokio::join!(work, told);
    assert_eq!(vector.expect("a vector"), vector_of("one", 1_024));
}

#[tokio::test]
async fn e2_a_broken_connection_is_tried_again() {
    let mut stand = Stand::start(vec![]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let target = stand.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        // The first connection breaks once the request has begun; the others go through.
        let (first, _) = listener.accept().await.expect("accept");
        first.readable().await.expect("a request");
        drop(first);
        loop {
            let (mut inward, _) = listener.accept().await.expect("accept");
            let target = target.clone();
            tokio::spawn(async move {
                let mut outward = tokio::net::TcpStream::connect(target).await.expect("connect");
                drop(tokio::io::copy_bidirectional(&mut inward, &mut outward).await);
            });
        }
    });
    let (embedder, clock) = remote(cohere(&url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let work = embedder.embed(&model, InputType::Query, texts(["one"]), LONG);
    let told = async {
        clock.pass_if(|wait| wait < Duration::from_secs(1)).await;
        stand.next().await;
    };
    let (vector, ()) = tokio::join!(work, told);
    assert_eq!(vector.expect("a vector"), vector_of("one", 1_024));
}

#[tokio::test]
async fn a_text_that_is_refused_does_not_take_its_neighbours_along() {
    // The first call occupies one of the places, so that the next two texts share one call.
    let refusal = Reply::Raw(400, vec![], r#"{"message":"bad text"}"#.to_owned());
    let again = Reply::Raw(400, vec![], r#"{"message":"bad text"}"#.to_owned());
    let mut stand = Stand::start(vec![Reply::Silence, refusal, again]).await;
    let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let embed = |text| embedder.embed(&model, InputType::Document, texts([text]), LONG);
    let blocked = embed("blocked");
    let told = async {
        assert_eq!(stand.next().await.body["texts"], json!(["blocked"]));
        let told = async {
            clock.pass(Duration::from_millis(5)).await;
            assert_eq!(stand.next().await.body["texts"], json!(["bad", "good"]));
            assert_eq!(stand.next().await.body["texts"], json!(["bad"]));
            assert_eq!(stand.next().await.body["texts"], json!(["good"]));
        };
        tokio::join!(embed("bad"), embed("good"), told)
    };
    let (bad, good, ()) = tokio::select! {
        answer = blocked => panic!("the first call has no answer: {answer:?}"),
        told = told => told,
    };
    assert_eq!(bad, Err(provider(Some(400), "Bad Request: bad text")));
    assert_eq!(good.expect("a vector"), vector_of("good", 1_024));
}

#[tokio::test]
async fn texts_are_checked_before_anything_is_sent() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let embed = |texts| embedder.embed(&model, InputType::Document, texts, LONG);
    assert_eq!(embed(texts(["a", " \n"])).await, Err(EmbedError::BlankText { index: 1 }));
    let long = "x".repeat(524_289);
    assert_eq!(
        embed(vec![long]).await,
        Err(EmbedError::TextTooLong {
            index: 0,
            chars: 524_289,
            chars_max: 524_288,
            provider: ProviderKind::Cohere,
        })
    );
    assert_eq!(embed(vec![]).await, Ok(vec![]));
    stand.assert_quiet();
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_the_start() {
    let check = async |url: &str| {
        let (config, clock) = (cohere(url, CohereVersion::V1), crate::support::Clock::default());
        let local = arrwdb_embed::LocalSource::Unavailable(String::new());
        let parts = crate::support::parts(local, std::sync::Arc::new(clock));
        arrwdb_embed::Embedder::open(config, parts).await.expect_err("refused")
    };
    assert!(matches!(check("api.cohere.ai").await, OpenError::BaseUrl { .. }));
    assert!(matches!(check("ftp://api.cohere.ai").await, OpenError::BaseUrl { .. }));
}

#[tokio::test]
async fn a_spent_quota_is_told_as_what_it_is() {
    let body =
        json!({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}});
    let failed = outcome(429, &body.to_string()).await;
    assert_eq!(failed, provider(Some(429), "Too Many Requests: You exceeded your quota"));
}

#[tokio::test]
async fn a_long_failure_still_says_what_it_is() {
    let body = format!("bad gateway <!-- {} -->", "x".repeat(100_000));
    let EmbedError::Provider { status: Some(403), detail } = outcome(403, &body).await else {
        panic!("another failure");
    };
    assert!(detail.starts_with("Forbidden: bad gateway <!-- xxx"), "{detail}");
    assert!(detail.len() < 400, "{}", detail.len());
}

#[tokio::test]
async fn an_answer_larger_than_its_vectors_is_not_read() {
    let body = format!("{}{{}}", " ".repeat(4 << 20));
    let EmbedError::Provider { status: Some(200), detail } = outcome(200, &body).await else {
        panic!("another failure");
    };
    assert!(detail.starts_with("its answer is larger than "), "{detail}");
}

#[tokio::test]
async fn a_redirect_that_loses_the_call_is_named() {
    let moved = Reply::Raw(302, vec![("location", "/elsewhere")], String::new());
    let gone = Reply::Raw(405, vec![], String::new());
    let mut stand = Stand::start(vec![moved, gone]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let failed = embedder.embed(&model, InputType::Query, texts(["one"]), LONG).await;
    let Err(EmbedError::Provider { status: Some(405), detail }) = failed else {
        panic!("{failed:?}");
    };
    assert!(detail.contains("/elsewhere: set the base URL to where the service is"), "{detail}");
    stand.next().await;
}

#[tokio::test]
async fn e2_a_failure_of_the_way_to_the_provider_is_tried_again() {
    for status in [520, 522, 599] {
        let bad = Reply::Raw(status, vec![], String::new());
        let stand = Stand::start(vec![bad]).await;
        let (embedder, clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
        let model = embedder.default_model();
        let work = embedder.embed(&model, InputType::Query, texts(["one"]), LONG);
        let told = clock.pass_if(|wait| wait < Duration::from_secs(1));
        let (vector, _waited) = tokio::join!(work, told);
        assert_eq!(vector.expect("a vector"), vector_of("one", 1_024), "{status}");
    }
}

#[tokio::test]
async fn an_address_may_hold_a_query() {
    let mut stand = Stand::start(vec![]).await;
    let mut config = openai(&stand.url, "text-embedding-3-small", None);
    if let Some(openai) = &mut config.openai {
        openai.base_url = format!("{}/v1/?api-version=7", stand.url);
    }
    let (embedder, _clock) = remote(config).await;
    let model = embedder.default_model();
    embedder.embed(&model, InputType::Query, texts(["one"]), LONG).await.expect("a vector");
    assert_eq!(stand.next().await.path, "/v1/embeddings");
}
