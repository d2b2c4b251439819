//! What is sent to the providers, byte for byte where it matters, and what is read from them.

use arrwdb_embed::deterministic::vector_of;
use arrwdb_embed::{CohereVersion, InputType, ModelRequest, ProviderKind};
use serde_json::json;

use crate::support::{KEY, LONG, Reply, Stand, cohere, openai, remote, texts};

#[tokio::test]
async fn cohere_v1_is_called_as_the_oldest_clients_do() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    assert_eq!((model.model.as_str(), model.dimension), ("embed-english-v3.0", 1_024));
    let vectors = embedder
        .embed(&model, InputType::Document, texts(["red apple", "blue sky"]), LONG)
        .await
        .expect("vectors");
    assert_eq!(vectors, [vector_of("red apple", 1_024), vector_of("blue sky", 1_024)].concat());
    let seen = stand.next().await;
    assert_eq!(seen.path, "/v1/embed");
    assert_eq!(seen.headers["authorization"], format!("BEARER {KEY}"));
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(
        seen.body,
        json!({
            "model": "embed-english-v3.0", "texts": ["red apple", "blue sky"],
            "truncate": "END", "compression": null, "input_type": "search_document",
        })
    );
    let stats = embedder.stats();
    let [(counted, stats)] = stats.models.as_slice() else { panic!("one model: {stats:?}") };
    assert_eq!(counted.as_ref(), Some(&model));
    assert_eq!((stats.calls, stats.texts, stats.tokens, stats.failures), (1, 2, 6, 0));
}

#[tokio::test]
async fn cohere_v2_names_the_type_and_the_dimension() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V2)).await;
    let request = ModelRequest {
        model: Some("embed-v4.0".to_owned()),
        dimension: Some(256),
        ..ModelRequest::default()
    };
    let model = embedder.resolve(request).expect("a model");
    let vectors = embedder
        .embed(&model, InputType::Query, texts(["red apple"]), LONG)
        .await
        .expect("vectors");
    assert_eq!(vectors, vector_of("red apple", 256));
    let seen = stand.next().await;
    assert_eq!(seen.path, "/v2/embed");
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        seen.body,
        json!({
            "model": "embed-v4.0", "input_type": "search_query", "texts": ["red apple"],
            "embedding_types": ["float"], "truncate": "END", "output_dimension": 256,
        })
    );
}

#[tokio::test]
async fn a_shorter_dimension_of_an_older_model_is_cut_and_made_unit_length() {
    let mut stand = Stand::start(vec![]).await;
    let mut config = cohere(&stand.url, CohereVersion::V2);
    config.dimension = Some(100);
    let (embedder, _clock) = remote(config).await;
    let model = embedder.default_model();
    assert_eq!(model.dimension, 100);
    let vector = embedder
        .embed(&model, InputType::Query, texts(["red apple"]), LONG)
        .await
        .expect("a vector");
    assert!(stand.next().await.body.get("output_dimension").is_none());
    assert_eq!(vector.len(), 100);
    let length: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    let full = vector_of("red apple", 1_024);
    let norm: f32 = full[..100].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(vector.iter().zip(&full).all(|(cut, full)| (cut - full / norm).abs() < 1e-6));
}

#[tokio::test]
async fn more_than_a_call_takes_becomes_several_calls_in_order() {
    let mut stand = Stand::start(vec![]).await;
    let (embedder, _clock) = remote(cohere(&stand.url, CohereVersion::V1)).await;
    let model = embedder.default_model();
    let many: Vec<String> = (0..200).map(|number| format!("text {number}")).collect();
    let vectors =
        embedder.embed(&model, InputType::Document, many.clone(), LONG).await.expect("vectors");
    let expected: Vec<f32> = many.iter().flat_map(|text| vector_of(text, 1_024)).collect();
    assert!(vectors == expected);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(stand.next().await.body["texts"].as_array().expect("texts").len());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [8, 96, 96]);
    stand.assert_quiet();
}

#[tokio::test]
async fn openai_is_called_as_documented_and_its_order_is_not_trusted() {
    let mut stand = Stand::start(vec![]).await;
    let config = openai(&stand.url, "text-embedding-3-small", None);
    let (embedder, _clock) = remote(config).await;
    let model = embedder.default_model();
    assert_eq!((model.provider, model.dimension), (ProviderKind::OpenAi, 1_536));
    let vectors = embedder
        .embed(&model, InputType::Document, texts(["one", "two", "three"]), LONG)
        .await
        .expect("vectors");
    let expected = ["one", "two", "three"].map(|text| vector_of(text, 1_536)).concat();
    assert!(vectors == expected);
    let seen = stand.next().await;
    assert_eq!(seen.path, "/v1/embeddings");
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        seen.body,
        json!({
            "input": ["one", "two", "three"], "model": "text-embedding-3-small",
            "encoding_format": "float",
        })
    );
    let stats = embedder.stats();
    assert_eq!(stats.models[0].1.tokens, 6);
}

#[tokio::test]
async fn openai_dimensions_are_sent_only_when_set() {
    let mut stand = Stand::start(vec![]).await;
    let config = openai(&stand.url, "text-embedding-3-small", Some(256));
    let (embedder, _clock) = remote(config).await;
    let model = embedder.default_model();
    assert_eq!(model.dimension, 256);
    embedder.embed(&model, InputType::Query, texts(["one"]), LONG).await.expect("a vector");
    assert_eq!(stand.next().await.body["dimensions"], 256);
}

#[tokio::test]
async fn another_servers_model_is_used_by_name_and_stated_dimension() {
    let mut stand = Stand::start(vec![]).await;
    let mut config = openai(&stand.url, "nomic-embed-text", None);
    config.dimension = Some(768);
    if let Some(openai) = &mut config.openai {
        openai.api_key = None;
    }
    let (embedder, _clock) = remote(config).await;
    let model = embedder.default_model();
    let vector =
        embedder.embed(&model, InputType::Query, texts(["one"]), LONG).await.expect("a vector");
    assert_eq!(vector, vector_of("one", 768));
    let seen = stand.next().await;
    assert!(seen.headers.get("authorization").is_none());
    assert!(seen.body.get("dimensions").is_none());
}

#[tokio::test]
async fn vectors_in_base64_are_read_too() {
    // 1.0, -2.5 as little-endian floats.
    let body = json!({
        "data": [{"index": 0, "embedding": "AACAPwAAIMA="}], "model": "tiny",
    });
    let reply = Reply::Raw(200, vec![], body.to_string());
    let stand = Stand::start(vec![reply]).await;
    let mut config = openai(&stand.url, "tiny", None);
    config.dimension = Some(2);
    let (embedder, _clock) = remote(config).await;
    let vector = embedder
        .embed(&embedder.default_model(), InputType::Query, texts(["one"]), LONG)
        .await
        .expect("a vector");
    assert_eq!(vector, [1.0, -2.5]);
}
