//! Pictures: what is sent for them to each provider that takes them, and what is refused, tried again,
//! cached and counted.

use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::deterministic::vector_of;
use arrwdb_embed::{
    CacheConfig, CohereVersion, EmbedConfig, EmbedError, Embedder, InputType, Meter, ModelRequest,
    ModelSpec, Picture, PictureCall, ProviderKind, Usage,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{KEY, LONG, Reply, Stand, cohere, openai, remote, texts};

const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";
const JPEG: &str = "data:image/jpeg;base64,/9j/4AAQ";
const LINK: &str = "https://h/p.png?size=2";

fn pictures<const N: usize>(urls: [&str; N]) -> Vec<Picture> {
    urls.map(|url| Picture::parse(url.to_owned()).expect("a picture")).into()
}

fn cohere_with_pictures(url: &str) -> EmbedConfig {
    let mut config = cohere(url, CohereVersion::V1);
    if let Some(cohere) = &mut config.cohere {
        cohere.pictures = true;
    }
    config
}

/// A server like OpenAI's with a model of 768 dimensions.
fn server(url: &str, call: PictureCall) -> EmbedConfig {
    let mut config = openai(url, "clip", None);
    config.dimension = Some(768);
    if let Some(openai) = &mut config.openai {
        openai.pictures = Some(call);
    }
    config
}

async fn embed<const N: usize>(
    embedder: &Embedder,
    input: InputType,
    urls: [&str; N],
) -> Result<Vec<f32>, EmbedError> {
    embedder.embed_pictures(&embedder.default_model(), input, pictures(urls), LONG).await
}

#[tokio::test]
async fn cohere_gets_one_picture_a_call_by_the_second_version() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere_with_pictures(&stand.url)).await;
    let vectors = embed(&embedder, InputType::Document, [PNG, JPEG, PNG]).await.expect("vectors");
    let expected = [PNG, JPEG, PNG].map(|url| vector_of(url, 1_024)).concat();
    assert!(vectors == expected);
    let mut sent = Vec::new();
    for _ in 0..2 {
        let seen = stand.next().await;
        assert_eq!(
            (seen.path.as_str(), seen.headers["authorization"].to_str().ok()),
            ("/v2/embed", Some(&*format!("Bearer {KEY}")))
        );
        sent.push(seen.body);
    }
    stand.assert_quiet();
    sent.sort_by_key(ToString::to_string);
    let body = |url: &str| {
        json!({
            "model": "embed-english-v3.0", "input_type": "image", "images": [url],
            "embedding_types": ["float"],
        })
    };
    assert_eq!(sent, [body(JPEG), body(PNG)]);
    // Its texts go as they always do.
    let model = embedder.default_model();
    embedder.embed(&model, InputType::Query, texts(["red"]), LONG).await.expect("a vector");
    assert_eq!(stand.next().await.path, "/v1/embed");
}

#[tokio::test]
async fn cohere_computes_the_dimension_and_counts_tokens_of_pictures() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere_with_pictures(&stand.url)).await;
    let request = ModelRequest {
        model: Some("embed-v4.0".to_owned()),
        dimension: Some(256),
        ..ModelRequest::default()
    };
    let model = embedder.resolve(request).expect("a model");
    let bill = Arc::new(Bill::default());
    let metered = embedder.metered(bill.clone());
    let vector = metered.embed_pictures(&model, InputType::Query, pictures([PNG]), LONG).await;
    assert_eq!(vector.expect("a vector"), vector_of(PNG, 256));
    assert_eq!(stand.next().await.body["output_dimension"], 256);
    assert_eq!(*bill.0.lock(), [Usage { texts: 1, tokens: 1_610, ..Usage::default() }]);
    assert_eq!(embedder.stats().models[0].1.tokens, 1_610);
}

/// What the calls of a server were for three pictures and a text, each in the order of the inputs.
async fn calls(call: PictureCall) -> Vec<(String, Value)> {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(server(&stand.url, call)).await;
    let mut calls = Vec::new();
    // One after the other, so that their order is that of the test.
    for urls in [[PNG], [LINK]] {
        let vector = embed(&embedder, InputType::Document, urls).await.expect("a vector");
        assert_eq!(vector.len(), 768);
        let seen = stand.next().await;
        calls.push((seen.path, seen.body));
    }
    embed(&embedder, InputType::Query, [JPEG]).await.expect("a vector");
    let model = embedder.default_model();
    let vector = embedder.embed(&model, InputType::Query, texts(["red"]), LONG).await;
    assert_eq!(vector.expect("a vector"), vector_of("red", 768));
    for _ in 0..2 {
        let seen = stand.next().await;
        calls.push((seen.path, seen.body));
    }
    stand.assert_quiet();
    calls
}

#[tokio::test]
async fn jina_gets_objects_in_its_input_with_plain_base64() {
    let input = |input: Value| {
        let body = json!({"input": [input], "model": "clip", "encoding_format": "float"});
        ("/v1/embeddings".to_owned(), body)
    };
    let expected = [
        input(json!({"image": "iVBORw0KGgo="})),
        input(json!({"image": LINK})),
        input(json!({"image": "/9j/4AAQ"})),
        input(json!("red")),
    ];
    assert_eq!(calls(PictureCall::Jina).await, expected);
}

#[tokio::test]
async fn vllm_gets_a_chat_for_each_input_texts_too() {
    let message = |part: Value| {
        let messages = json!([{"role": "user", "content": [part]}]);
        let body = json!({"messages": messages, "model": "clip", "encoding_format": "float"});
        ("/v1/embeddings".to_owned(), body)
    };
    let picture = |url: &str| message(json!({"type": "image_url", "image_url": {"url": url}}));
    let text = message(json!({"type": "text", "text": "red"}));
    let expected = [picture(PNG), picture(LINK), picture(JPEG), text];
    assert_eq!(calls(PictureCall::Vllm).await, expected);
}

#[tokio::test]
async fn voyage_gets_everything_by_its_call_of_both() {
    let input = |part: Value, input_type: &str| {
        let inputs = json!([{"content": [part]}]);
        let body = json!({"inputs": inputs, "model": "clip", "input_type": input_type});
        ("/v1/multimodalembeddings".to_owned(), body)
    };
    let expected = [
        input(json!({"type": "image_base64", "image_base64": PNG}), "document"),
        input(json!({"type": "image_url", "image_url": LINK}), "document"),
        input(json!({"type": "image_base64", "image_base64": JPEG}), "query"),
        input(json!({"type": "text", "text": "red"}), "query"),
    ];
    assert_eq!(calls(PictureCall::Voyage).await, expected);
}

#[tokio::test]
async fn several_texts_and_pictures_come_back_in_order_from_every_server() {
    for call in [PictureCall::Jina, PictureCall::Vllm, PictureCall::Voyage] {
        let stand = Stand::start(vec![]).await;
        let (embedder, _clock) = remote(server(&stand.url, call)).await;
        let links: Vec<String> = (0..20).map(|n| format!("http://h/{n}.png")).collect();
        let given = links.iter().map(|link| Picture::parse(link.clone()).expect("a picture"));
        let model = embedder.default_model();
        let input = InputType::Document;
        let vectors = embedder.embed_pictures(&model, input, given.collect(), LONG).await;
        let expected: Vec<f32> = links.iter().flat_map(|link| vector_of(link, 768)).collect();
        assert!(vectors.expect("vectors") == expected, "{call:?}");
        let words: Vec<String> = (0..40).map(|n| format!("word {n}")).collect();
        let vectors = embedder.embed(&model, input, words.clone(), LONG).await;
        let expected: Vec<f32> = words.iter().flat_map(|word| vector_of(word, 768)).collect();
        assert!(vectors.expect("vectors") == expected, "{call:?}");
    }
}

#[tokio::test]
async fn jina_gets_one_picture_a_call_so_that_what_it_refuses_is_known() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(server(&stand.url, PictureCall::Jina)).await;
    let mut urls = vec![PNG.to_owned()];
    urls.extend((0..10).map(|n| format!("http://h/{n}")));
    let given = urls.iter().map(|url| Picture::parse(url.clone()).expect("a picture")).collect();
    let model = embedder.default_model();
    embedder.embed_pictures(&model, InputType::Document, given, LONG).await.expect("vectors");
    for _picture in &urls {
        assert_eq!(stand.next().await.body["input"].as_array().expect("inputs").len(), 1);
    }
    stand.assert_quiet();
}

#[tokio::test]
async fn what_is_said_of_a_link_is_kept_to_its_status() {
    let body =
        json!({"message": "cannot load http://h/p?secret=1: connection refused"}).to_string();
    for call in [PictureCall::Jina, PictureCall::Vllm, PictureCall::Voyage] {
        for (status, reason) in [(400, "Bad Request"), (401, "Unauthorized")] {
            let stand = Stand::start(vec![Reply::Raw(status, vec![], body.clone())]).await;
            let (embedder, _clock) = remote(server(&stand.url, call)).await;
            let link = "http://h/p?secret=1";
            let failed = embed(&embedder, InputType::Document, [link]).await.expect_err("refused");
            let said = format!("{failed:?} {failed}");
            assert!(said.contains(reason) && !said.contains("secret"), "{said}");
            assert_eq!(failed.is_of_a_text(), status == 400, "{said}");
        }
    }
}

#[tokio::test]
async fn who_is_not_set_up_for_pictures_says_what_to_set() {
    let stand = Stand::start(vec![]).await;
    let check = async |config: EmbedConfig, part: &str| {
        let (embedder, _clock) = remote(config).await;
        assert_eq!(embedder.picture_providers(), []);
        let refused = embed(&embedder, InputType::Document, [PNG]).await.expect_err("refused");
        let [picture] = &pictures([PNG])[..] else { panic!("one") };
        let model = embedder.default_model();
        assert_eq!(embedder.check_picture(&model, picture), Err(refused.clone()));
        assert!(matches!(refused, EmbedError::NoPictures { .. }), "{refused:?}");
        assert!(refused.to_string().contains(part), "{refused}");
    };
    check(cohere(&stand.url, CohereVersion::V2), "set COHERE_IMAGES to true").await;
    check(openai(&stand.url, "text-embedding-3-small", None), "set OPENAI_IMAGES to").await;
    check(EmbedConfig::default(), "local makes no vectors of pictures here").await;
    let (embedder, _clock) = remote(cohere_with_pictures(&stand.url)).await;
    assert_eq!(embedder.picture_providers(), [ProviderKind::Cohere]);
}

#[tokio::test]
async fn a_picture_that_a_provider_would_not_take_is_not_sent() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere_with_pictures(&stand.url)).await;
    let refused = async |url: String| {
        let failed = embed(&embedder, InputType::Document, [PNG, &url]).await.expect_err("refused");
        assert!(failed.is_of_a_text(), "{failed:?}");
        failed.to_string()
    };
    let link = refused(LINK.to_owned()).await;
    assert!(link.contains("give the picture itself as a data: URL"), "{link}");
    // Five megabytes and three bytes.
    let large =
        refused(format!("data:image/png;base64,{}", "A".repeat(((5 << 20) + 4) / 3 * 4))).await;
    assert!(large.contains("the limit is 5242880"), "{large}");
    stand.assert_quiet();
    assert!(embed(&embedder, InputType::Document, []).await.expect("nothing").is_empty());
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_a_failure_is_tried_again() {
    let replies = vec![
        Reply::Raw(429, vec![("retry-after", "7")], String::new()),
        Reply::Raw(503, vec![], String::new()),
    ];
    let mut stand = Stand::start(replies).await;
    let (embedder, clock) = remote(cohere_with_pictures(&stand.url)).await;
    let work = embed(&embedder, InputType::Document, [PNG]);
    let time = async {
        clock.pass(Duration::from_secs(7)).await;
        // Half of a backoff of one second at least.
        clock.pass_if(|slept| (500..=1_000).contains(&slept.as_millis())).await;
        std::future::pending::<()>().await;
    };
    let vector = tokio::select! { vector = work => vector, () = time => panic!("no answer") };
    assert_eq!(vector.expect("a vector"), vector_of(PNG, 1_024));
    for _ in 0..3 {
        assert_eq!(stand.next().await.body["images"], json!([PNG]));
    }
    assert_eq!(embedder.stats().models[0].1.retries, 2);
}

#[tokio::test]
async fn what_a_provider_refuses_or_gets_wrong_is_told_without_the_key() {
    for call in [None, Some(PictureCall::Jina), Some(PictureCall::Vllm), Some(PictureCall::Voyage)]
    {
        let outcome = async |status: u16, body: String| {
            let stand = Stand::start(vec![Reply::Raw(status, vec![], body)]).await;
            let config = match call {
                None => cohere_with_pictures(&stand.url),
                Some(call) => server(&stand.url, call),
            };
            let (embedder, _clock) = remote(config).await;
            let failed = embed(&embedder, InputType::Document, [PNG]).await.expect_err("a failure");
            assert!(!format!("{failed:?}{failed}").contains(KEY));
            assert!(!format!("{failed:?}{failed}").contains("iVBORw0KGgo"));
            failed
        };
        let body = json!({"message": format!("no picture, {KEY}")}).to_string();
        let EmbedError::PictureUnfit { detail, .. } = outcome(400, body).await else {
            panic!("a refusal");
        };
        assert_eq!(detail, "Bad Request: no picture, ***");
        let short = match call {
            None => json!({"embeddings": {"float": [[1.0, 2.0]]}}),
            Some(_) => json!({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}),
        };
        let expected = if call.is_none() { 1_024 } else { 768 };
        let failed = outcome(200, short.to_string()).await;
        assert_eq!(failed, EmbedError::WrongDimension { expected, got: 2 });
        let zeros = match call {
            None => json!({"embeddings": {"float": [vec![0.0; 1_024]]}}),
            Some(_) => json!({"data": [{"index": 0, "embedding": vec![0.0; 768]}]}),
        };
        assert_eq!(outcome(200, zeros.to_string()).await, EmbedError::NotFinite { index: 0 });
        let none = match call {
            None => json!({"embeddings": {"float": []}}),
            Some(_) => json!({ "data": [] }),
        };
        let failed = outcome(200, none.to_string()).await;
        assert!(matches!(failed, EmbedError::Provider { status: None, .. }), "{failed:?}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_given_up_at_the_deadline() {
    let stand = Stand::start(vec![Reply::Silence]).await;
    let (embedder, clock) = remote(cohere_with_pictures(&stand.url)).await;
    let deadline = Duration::from_secs(3);
    let model: ModelSpec = embedder.default_model();
    let work = embedder.embed_pictures(&model, InputType::Query, pictures([PNG]), deadline);
    let time = async {
        clock.pass(deadline).await;
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! { failed = work => failed, () = time => panic!("no answer") };
    // The caller's time and the call's end in one instant: either may tell.
    let silent = EmbedError::Provider { status: None, detail: "no answer within 3s".into() };
    assert!([EmbedError::Deadline { deadline }, silent].map(Err).contains(&failed), "{failed:?}");
    embedder.close().await;
    assert_eq!(embed(&embedder, InputType::Query, [PNG]).await, Err(EmbedError::Closed));
}

#[derive(Debug, Default)]
struct Bill(Mutex<Vec<Usage>>);

impl Meter for Bill {
    fn used(&self, usage: Usage) {
        self.0.lock().push(usage);
    }

    fn may_call(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_picture_is_cached_apart_from_texts_and_what_a_link_shows_is_not() {
    let mut stand = Stand::start(vec![]).await;
    let cache = CacheConfig { memory_bytes_max: 1 << 20, ..CacheConfig::default() };
    let config = EmbedConfig { cache, ..server(&stand.url, PictureCall::Jina) };
    let (embedder, _clock) = remote(config).await;
    let (model, bill) = (embedder.default_model(), Arc::new(Bill::default()));
    let metered = embedder.metered(bill.clone());
    let embed = async |url: &str| {
        let given = pictures([url]);
        metered.embed_pictures(&model, InputType::Document, given, LONG).await.expect("a vector")
    };
    let first = embed(PNG).await;
    stand.next().await;
    assert_eq!(embed(PNG).await, first);
    stand.assert_quiet();
    // The same characters as a text are another thing.
    metered.embed(&model, InputType::Document, texts([PNG]), LONG).await.expect("a vector");
    assert_eq!(stand.next().await.body["input"], json!([PNG]));
    for _ in 0..2 {
        embed(LINK).await;
        assert_eq!(stand.next().await.body["input"], json!([{ "image": LINK }]));
    }
    // The server counts two tokens an input; what was cached is estimated, by no length of a URL.
    let called = Usage { texts: 1, tokens: 2, ..Usage::default() };
    let cached = Usage { cached_texts: 1, cached_tokens: 1_000, ..Usage::default() };
    assert_eq!(*bill.0.lock(), [called, cached, called, called, called]);
}

#[tokio::test]
async fn tokens_of_pictures_that_nobody_counts_or_believes_are_estimated() {
    // Cohere's third generation says how many pictures; a count beyond any picture is not believed.
    let absurd = json!({
        "embeddings": {"float": [vec![1.0; 1_024]]},
        "meta": {"billed_units": {"image_tokens": 1e12}},
    });
    let replies = vec![Reply::Real, Reply::Raw(200, vec![], absurd.to_string())];
    let stand = Stand::start(replies).await;
    let (embedder, _clock) = remote(cohere_with_pictures(&stand.url)).await;
    let (model, bill) = (embedder.default_model(), Arc::new(Bill::default()));
    let metered = embedder.metered(bill.clone());
    for url in [PNG, JPEG] {
        let given = pictures([url]);
        metered.embed_pictures(&model, InputType::Document, given, LONG).await.expect("a vector");
    }
    let estimated = Usage { texts: 1, tokens: 1_000, ..Usage::default() };
    assert_eq!(*bill.0.lock(), [estimated, estimated]);
    let stats = &embedder.stats().models[0].1;
    assert_eq!((stats.texts, stats.tokens), (2, 2_000));
}
