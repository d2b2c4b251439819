//! Keyword and hybrid search over HTTP and WebSocket.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Server, Site};

/// Passages with vectors of their own: (title, text, direction).
const PASSAGES: [(&str, &str, f64); 6] = [
    ("Logs", "A torn tail of the log is cut after a power failure.", 0.1),
    ("Checkpoints", "Checkpoints are written while the power is on; a failure loses nothing.", 0.2),
    ("Indexes", "Graphs are walked, and lists are probed.", 0.3),
    ("Tokyo", "\u{6771}\u{4eac}\u{90fd}\u{306b}\u{4f4f}\u{3080} \u{732b}", 0.4),
    (
        "Caf\u{e9}",
        "The caf\u{e9} of the old town \u{1f389}, \u{643}\u{650}\u{62a}\u{627}\u{628}.",
        0.5,
    ),
    ("Empty", "To be or not to be.", 0.6),
];

async fn passages(server: &Server) -> String {
    let library = server.vector_library(2).await;
    for (title, text, direction) in PASSAGES {
        let document = json!({
            "title": title, "metadata": {"letters": title.len()},
            "chunks": [{"text": text, "embedding": [1.0, direction]}],
        });
        let path = format!("/v1/libraries/{library}/documents/with-embeddings");
        server.post(&path, &document).await.expect(201);
    }
    library
}

fn titles(answer: &Value) -> Vec<&str> {
    let hits = answer["results"].as_array().expect("results").iter();
    hits.map(|hit| hit["document_title"].as_str().expect("a title")).collect()
}

#[tokio::test]
async fn passages_are_found_by_their_words() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = passages(&server).await;
    let path = format!("/v1/libraries/{library}/search/keyword");
    for (query, expect) in [
        ("power failures", &["Logs", "Checkpoints"][..]),
        ("\"power failure\"", &["Logs", "Checkpoints"]),
        ("+\"power failure\"", &["Logs"]),
        ("failure -\"torn tail\"", &["Checkpoints"]),
        ("checkpoint", &["Checkpoints"]),
        ("grap*", &["Indexes"]),
        ("\u{6771}\u{4eac}", &["Tokyo"]),
        ("\u{732b}", &["Tokyo"]),
        ("cafe", &["Caf\u{e9}"]),
        ("\u{1f389}", &["Caf\u{e9}"]),
        ("\u{643}\u{62a}\u{627}\u{628}", &["Caf\u{e9}"]),
        ("+\"to be or not to be\"", &["Empty"]),
        ("nowhere", &[]),
        ("!? \"", &[]),
    ] {
        let answer = server.post(&path, &json!({ "query": query })).await.expect(200);
        assert_eq!(titles(&answer), expect, "{query}");
        let scores: Vec<f64> = (answer["results"].as_array().expect("results").iter())
            .map(|hit| hit["score"].as_f64().expect("a score"))
            .collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| *score > 0.0));
        assert!(
            answer["results"]
                .as_array()
                .expect("results")
                .iter()
                .all(|hit| hit["distance"].is_null())
        );
    }
    let both = json!({"query": "torn checkpoints power", "operator": "and"});
    assert_eq!(titles(&server.post(&path, &both).await.expect(200)), [""; 0]);
    let filtered =
        json!({"query": "power failure", "filter": {"title": "Checkpoints"}, "explain": true});
    let answer = server.post(&path, &filtered).await.expect(200);
    assert_eq!(titles(&answer), ["Checkpoints"]);
    assert_eq!(answer["explain"]["keywords"]["terms"], json!({"power": 2, "failur": 2}));
    assert_eq!(answer["results"][0]["signals"]["keyword_rank"], 1);
    assert_eq!(answer["results"][0]["signals"]["vector_rank"], Value::Null);

    // What was written is found at once, what was deleted is not, and the past is as it was.
    let documents = format!("/v1/libraries/{library}/documents");
    let late = json!({"title": "late", "chunks": [{"text": "zebras", "embedding": [1, 1]}]});
    let added = server.post(&format!("{documents}/with-embeddings"), &late).await;
    let (seq, added) = (added.seq(), added.expect(201));
    let zebras = json!({"query": "zebra"});
    assert_eq!(titles(&server.post(&path, &zebras).await.expect(200)), ["late"]);
    let id = added["id"].as_str().expect("an id");
    server.delete(&format!("{documents}/{id}")).await.expect_status(204);
    assert_eq!(titles(&server.post(&path, &zebras).await.expect(200)), [""; 0]);
    let past = json!({"query": "zebra", "as_of": seq});
    assert_eq!(titles(&server.post(&path, &past).await.expect(200)), ["late"]);
}

#[tokio::test]
async fn words_that_were_found_are_shown() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = passages(&server).await;
    let path = format!("/v1/libraries/{library}/search/keyword");
    for (query, highlight, expect) in [
        ("power", json!(true), "A torn tail of the log is cut after a <em>power</em> failure."),
        (
            "\u{6771}\u{4eac}\u{90fd}",
            json!({"pre_tag": "[", "post_tag": "]"}),
            "[\u{6771}\u{4eac}\u{90fd}]\u{306b}\u{4f4f}\u{3080} \u{732b}",
        ),
        (
            "cafe",
            json!({"fragments": 1, "fragment_chars": 20}),
            "The <em>caf\u{e9}</em> of the old",
        ),
    ] {
        let body = json!({"query": query, "highlight": highlight});
        let answer = server.post(&path, &body).await.expect(200);
        assert_eq!(answer["results"][0]["highlights"], json!([expect]), "{query}");
    }
    let plain = server.post(&path, &json!({"query": "power"})).await.expect(200);
    assert_eq!(plain["results"][0].get("highlights"), None);
}

#[tokio::test]
async fn a_hybrid_search_fuses_both_rankings() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = passages(&server).await;
    let path = format!("/v1/libraries/{library}/search/embedding");
    // Nearest first they are as they were added; the words are in the second and the first.
    let ask = |more: Value| {
        let mut body = json!({
            "embedding": [1, 0], "query": "checkpoints power", "mode": "hybrid", "explain": true,
            "fusion": "rrf",
        });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        body
    };
    let answer = server.post(&path, &ask(json!({}))).await.expect(200);
    assert_eq!(titles(&answer), ["Logs", "Checkpoints", "Indexes", "Tokyo", "Caf\u{e9}", "Empty"]);
    let hits = answer["results"].as_array().expect("results");
    let rank = |hit: &Value, name: &str| hit["signals"][name].as_f64();
    for hit in hits {
        let part = |name| rank(hit, name).map_or(0.0, |rank| 1.0 / (60.0 + rank));
        let expected = part("vector_rank") + part("keyword_rank");
        assert!((hit["score"].as_f64().expect("a score") - expected).abs() < 1e-6, "{hit}");
        assert!(hit["distance"].is_number());
    }
    assert_eq!(answer["explain"]["fusion"], json!({"name": "rrf", "alpha": 0.5}));
    let signals = &hits[1]["signals"];
    assert_eq!((&signals["vector_rank"], &signals["keyword_rank"]), (&json!(2), &json!(1)));
    assert!(signals["bm25"].as_f64().is_some_and(|score| score > 0.0), "{signals}");
    for hit in hits {
        let parts = rank(hit, "vector_part").zip(rank(hit, "keyword_part"));
        let (vector, keyword) = parts.expect("what the score is made of");
        assert!((hit["score"].as_f64().expect("a score") - vector - keyword).abs() < 1e-6, "{hit}");
    }
    for (more, first) in [
        (json!({"alpha": 0.0}), "Checkpoints"),
        (json!({"alpha": 1.0, "fusion": "weighted"}), "Logs"),
        (json!({"alpha": 0.2, "fusion": "relative_score"}), "Checkpoints"),
        (json!({"query": "tokyo", "fusion": "weighted"}), "Tokyo"),
    ] {
        let answer = server.post(&path, &ask(more.clone())).await.expect(200);
        assert_eq!(titles(&answer)[0], first, "{more}");
    }
    // Unless told otherwise by relative scores: 0.6 of nearness, 0.4 of words.
    let usual = ask(json!({"query": "tokyo", "fusion": null}));
    let answer = server.post(&path, &usual).await.expect(200);
    assert_eq!(titles(&answer)[..2], ["Tokyo", "Logs"]);
    let scores = [0, 1].map(|at| answer["results"][at]["score"].as_f64().expect("a score"));
    assert!((0.6..0.8).contains(&scores[0]) && (scores[1] - 0.6).abs() < 1e-6, "{scores:?}");
    let near =
        server.post(&path, &ask(json!({"query": "tokyo", "distance_threshold": 0.01}))).await;
    assert_eq!(titles(&near.expect(200)), ["Logs"], "the threshold holds for what words find too");
    let signs = ask(json!({"query": "checkpoints -torn +power"}));
    let answer = server.post(&path, &signs).await.expect(200);
    assert_eq!(titles(&answer), ["Checkpoints"], "signs hold for what vectors find too");
    let two = server.post(&path, &ask(json!({"k": 2}))).await.expect(200);
    assert_eq!(titles(&two), ["Logs", "Checkpoints"]);
}

#[tokio::test]
async fn streams_and_sockets_search_by_words_too() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = passages(&server).await;
    let body = json!({"query": "power", "mode": "keyword", "k": 1000});
    let answer = server.post(&format!("/v1/libraries/{library}/search/stream"), &body).await;
    assert_eq!(answer.expect(200)["total"], 2);
    let stream = format!("/v1/libraries/{library}/search/stream?query=power&mode=keyword");
    assert_eq!(server.post(&stream, &json!({})).await.expect(200)["total"], 2);
    let wrong = format!("/v1/libraries/{library}/search/stream?query=power&mode=words");
    server.post(&wrong, &json!({})).await.problem(422, "ValidationError");
    let url = format!("{}/v1/libraries/{library}/ws", server.url.replace("http", "ws"));
    let (mut socket, _response) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    for (action, id) in [("search", "s"), ("watch", "w")] {
        let data = json!({"query_text": "power", "mode": "keyword", "watch_id": "live"});
        let message = json!({"request_id": id, "action": action, "data": data});
        socket.send(Message::text(message.to_string())).await.expect("sent");
    }
    let mut left = 2;
    while left > 0 {
        let frame = socket.next().await.expect("a frame").expect("a frame");
        let Message::Text(text) = frame else { continue };
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        if answer["request_id"] == "s" {
            assert_eq!(answer["data"]["results"].as_array().map(Vec::len), Some(2), "{answer}");
            left -= 1;
        } else if answer["request_id"] == "w" {
            assert!(answer.to_string().contains("/mode"), "{answer}");
            left -= 1;
        }
    }
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_where_it_is() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = passages(&server).await;
    let (keyword, embedding) = (
        format!("/v1/libraries/{library}/search/keyword"),
        format!("/v1/libraries/{library}/search/embedding"),
    );
    let blank = server.post(&keyword, &json!({"query": " "})).await;
    assert_eq!(blank.status, 400, "{}", blank.text());
    for (path, body, pointer) in [
        (&keyword, json!({"query": "a", "distance_threshold": 0.5}), "/distance_threshold"),
        (&keyword, json!({"query": "a", "recall": 0.9}), "/recall"),
        (&keyword, json!({"query": "a", "exact": true}), "/exact"),
        (&keyword, json!({"query": "a", "operator": "xor"}), "/operator"),
        (&keyword, json!({"query": "a", "highlight": 1}), "/highlight"),
        (&keyword, json!({"query": "a", "highlight": {"fragments": 0}}), "/highlight/fragments"),
        (
            &keyword,
            json!({"query": "a", "highlight": {"pre_tag": "x".repeat(65)}}),
            "/highlight/pre_tag",
        ),
        (&keyword, json!({"query": "a b ".repeat(300)}), "/query"),
        (&keyword, json!({"k": 3}), "/query"),
        (&embedding, json!({"embedding": [1, 0], "mode": "hybrid"}), "/query"),
        (&embedding, json!({"embedding": [1, 0], "mode": "fuzzy"}), "/mode"),
        (&keyword, json!({"query": "a", "mode": "hybrid"}), "/mode"),
        (&keyword, json!({"query": "a", "alpha": 0.5}), "/alpha"),
        (&keyword, json!({"query": format!("\"{}\"", "a ".repeat(65))}), "/query"),
        (&embedding, json!({"embedding": [1, 0], "fusion": "rrf"}), "/fusion"),
        (&embedding, json!({"embedding": [1, 0], "highlight": true}), "/highlight"),
        (&embedding, json!({"embedding": [1, 0], "operator": "and"}), "/operator"),
        (
            &embedding,
            json!({"embedding": [1, 0], "query": "a", "mode": "hybrid", "alpha": 1.5}),
            "/alpha",
        ),
        (
            &embedding,
            json!({"embedding": [1, 0], "query": "a", "mode": "hybrid", "fusion": "max"}),
            "/fusion",
        ),
    ] {
        let refused = server.post(path, &body).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{body}");
    }
}
