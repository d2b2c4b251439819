//! Vectors of pictures by a provider that makes them: written, changed and searched over HTTP, and what is
//! refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::provider::{Provider, Trouble, vector};
use crate::harness::{Answer, Server, Site};

/// A picture that shows these words to the stand-in.
fn picture(shows: &str) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(shows))
}

async fn add(server: &Server, library: &str, body: &Value) -> Answer {
    server.post(&format!("/v1/libraries/{library}/documents/multi-vector"), body).await
}

/// A document of one picture.
async fn show(server: &Server, library: &str, title: &str, url: &str) -> Answer {
    let body = json!({"title": title, "vectors": [{"type": "image", "image_url": url}]});
    add(server, library, &body).await
}

async fn search(server: &Server, library: &str, query: &Value) -> Answer {
    let path = format!("/v1/libraries/{library}/search/multi-vector");
    server.post(&path, &json!({"queries": [query], "k": 3})).await
}

fn titles(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["title"].as_str().expect("a title")).collect()
}

/// Titles of what is found, the best first.
async fn found(server: &Server, library: &str, query: Value) -> Vec<String> {
    let answer = search(server, library, &query).await.expect(200);
    titles(&answer).into_iter().map(str::to_owned).collect()
}

async fn vectors(server: &Server, library: &str, document: &Value) -> Value {
    let document = document.as_str().expect("an id");
    let path = format!("/v1/libraries/{library}/documents/{document}/vectors");
    server.get(&format!("{path}?include_embeddings=true")).await.expect(200)["vectors"].clone()
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn provider(site: &Site) -> &Provider {
    site.provider.as_ref().expect("a provider")
}

/// Cohere, marked for pictures.
async fn cohere() -> Site {
    let mut site = Site::new().await;
    site.set("COHERE_API_KEY", "hush-hush");
    site.set("COHERE_IMAGES", "true");
    site
}

/// A server like OpenAI's, marked for pictures by whose call it speaks.
async fn openai(call: &str) -> Site {
    let mut site = Site::new().await;
    let url = provider(&site).url();
    site.set("EMBEDDING_PROVIDER", "openai");
    site.set("OPENAI_BASE_URL", &format!("{url}/v1"));
    site.set("OPENAI_API_KEY", "hush-hush");
    site.set("OPENAI_IMAGES", call);
    site.set("EMBEDDING_MODEL", "clip");
    site.set("EMBEDDING_DIMENSION", "1024");
    site
}

/// What is the same with every provider: pictures and texts are found by pictures and by texts.
async fn pictures_and_texts_are_in_one_space(site: &Site) -> (Server, String) {
    let server = site.start().await;
    let library = server.library().await;
    let apple = show(&server, &library, "Apple", &picture("a red apple")).await.expect(201);
    show(&server, &library, "Ship", &picture("seven ships at sea")).await.expect(201);
    // The field is declared with the library's model by the first picture.
    let fields = server.get(&format!("/v1/libraries/{library}/vector-fields")).await.expect(200);
    let [text, image] = [&fields["vector_fields"][0], &fields["vector_fields"][1]];
    assert_eq!(
        (&image["name"], &image["dimension"], &image["embedding_model"]),
        (&json!("image"), &json!(1024), &text["embedding_model"])
    );
    let of_apple = vectors(&server, &library, &apple["id"]).await;
    assert_eq!(numbers(&of_apple[1]["embedding"]), vector("a red apple"));
    // What a data: URL holds is nowhere else.
    assert_eq!(of_apple[1]["metadata"], json!({}));
    assert!(!of_apple.to_string().contains("base64"));
    let by_text = json!({"type": "image", "query": "ships"});
    assert_eq!(found(&server, &library, by_text).await, ["Ship", "Apple"]);
    let by_picture = json!({"type": "image", "image_url": picture("one green apple")});
    assert_eq!(found(&server, &library, by_picture).await, ["Apple", "Ship"]);
    // Passages are found by pictures, too: their titles, here.
    let passages = json!({"type": "text", "image_url": picture("Ship")});
    assert_eq!(found(&server, &library, passages).await, ["Ship", "Apple"]);
    // One picture for several fields, which is embedded once.
    let before = provider(site).pictures();
    let path = format!("/v1/libraries/{library}/search/multi-vector");
    let types = json!(["text", "image"]);
    let body = json!({"image_url": picture("Ship ships"), "vector_types": types});
    assert_eq!(titles(&server.post(&path, &body).await.expect(200)), ["Ship", "Apple"]);
    assert_eq!(provider(site).pictures(), before + 1);
    (server, library)
}

#[tokio::test]
async fn cohere_makes_vectors_of_pictures_in_the_space_of_its_texts() {
    let site = cohere().await;
    let (server, library) = pictures_and_texts_are_in_one_space(&site).await;
    // It fetches nothing, and neither does this server.
    let fetched = show(&server, &library, "Far", "http://127.0.0.1:9/red-apple.png").await;
    let problem = fetched.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/vectors/0/image_url");
    let detail = problem["errors"][0]["detail"].as_str().expect("a text");
    assert!(detail.contains("give the picture itself as a data: URL"), "{detail}");
    assert!(!server.log().contains("hush-hush"));
}

#[tokio::test]
async fn servers_like_openais_make_them_by_the_call_they_speak_and_fetch_what_is_elsewhere() {
    for call in ["jina", "vllm", "voyage"] {
        let site = openai(call).await;
        let (server, library) = pictures_and_texts_are_in_one_space(&site).await;
        let link = "http://127.0.0.1:9/a-red-apple.png";
        let far = show(&server, &library, "Far", link).await.expect(201);
        let of_far = vectors(&server, &library, &far["id"]).await;
        assert_eq!(numbers(&of_far[1]["embedding"]), vector(link), "{call}");
        assert_eq!(of_far[1]["metadata"], json!({ "image_url": link }));
        let by_link = json!({"type": "image", "image_url": "http://127.0.0.1:9/apple.png"});
        assert_eq!(found(&server, &library, by_link).await[0], "Far", "{call}");
        assert!(!server.log().contains("hush-hush"));
    }
}

#[tokio::test]
async fn a_text_beside_a_picture_describes_it_and_a_value_goes_before_both() {
    let site = cohere().await;
    let server = site.start().await;
    let library = server.library().await;
    let shown = picture("a red apple");
    let given = vector("given");
    let body = json!({"title": "Apples", "vectors": [
        // A passage is made of its text, whatever is shown beside it.
        {"type": "text", "text": "of apples", "image_url": "http://h/p.png"},
        {"type": "image", "image_url": shown, "text": "the apple of a friend"},
        {"type": "image", "image_url": shown, "embedding": given},
        {"type": "image", "image_url": "file:///p.png", "embedding": given, "metadata": {"page": 2}},
    ]});
    let added = add(&server, &library, &body).await.expect(201);
    let all = vectors(&server, &library, &added["id"]).await;
    let expected = [
        (vector("of apples"), json!("of apples"), json!({"image_url": "http://h/p.png"})),
        (vector("a red apple"), json!("the apple of a friend"), json!({})),
        (given.clone(), Value::Null, json!({})),
        (given, Value::Null, json!({"image_url": "file:///p.png", "page": 2})),
    ];
    for (at, (embedding, text, metadata)) in expected.into_iter().enumerate() {
        assert_eq!(numbers(&all[at]["embedding"]), embedding, "{at}");
        assert_eq!((&all[at]["text"], &all[at]["metadata"]), (&text, &metadata), "{at}");
    }
    assert_eq!(provider(&site).pictures(), 1);
    // Every way of adding documents takes them.
    let body = json!({"title": "Pears", "texts": ["of pears"], "vectors": [{"type": "image", "image_url": picture("a pear")}]});
    server.post(&format!("/v1/libraries/{library}/documents"), &body).await.expect(201);
    let by_text = json!({"type": "image", "query": "pear"});
    assert_eq!(found(&server, &library, by_text).await[0], "Pears");
}

#[tokio::test]
async fn a_vector_is_changed_by_another_picture() {
    let site = openai("jina").await;
    let server = site.start().await;
    let library = server.library().await;
    let link = "http://h/apple.png";
    let added = show(&server, &library, "Fruit", link).await.expect(201);
    let (document, one) = (&added["id"], &added["vectors"][1]["id"]);
    let base = format!("/v1/libraries/{library}/documents/{}", document.as_str().expect("an id"));
    let path = format!("{base}/vectors/{}", one.as_str().expect("an id"));
    let put = async |path: &str, body: Value| {
        server.send(server.request(Method::PUT, path).json(&body)).await
    };
    let changed = put(&path, json!({"image_url": picture("a pear")})).await.expect(200);
    assert_eq!(numbers(&changed["embedding"]), vector("a pear"));
    // Where the one before was says nothing of this one.
    assert_eq!((&changed["id"], &changed["metadata"]), (one, &json!({})));
    let other = "http://h/plum.png";
    let body = json!({"image_url": other, "metadata": {"page": 4}, "text": "a plum"});
    let changed = put(&path, body).await.expect(200);
    assert_eq!(numbers(&changed["embedding"]), vector(other));
    assert_eq!(changed["metadata"], json!({"image_url": other, "page": 4}));
    assert_eq!(changed["text"], "a plum");
    // A value of one's own, with where its picture is.
    let body = json!({"embedding": vector("own"), "image_url": link});
    let changed = put(&path, body).await.expect(200);
    assert_eq!(numbers(&changed["embedding"]), vector("own"));
    assert_eq!(changed["metadata"], json!({"image_url": link, "page": 4}));
    let passage = format!("{base}/vectors/{}", added["vectors"][0]["id"].as_str().expect("an id"));
    let refused = put(&passage, json!({"image_url": picture("a pear")})).await;
    let problem = refused.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/image_url");
    let both = json!({"text": "fruit of all kinds", "image_url": link});
    let changed = put(&passage, both).await.expect(200);
    assert_eq!(numbers(&changed["embedding"]), vector("fruit of all kinds"));
    assert_eq!(changed["metadata"], json!({ "image_url": link }));
    let refused = put(&path, json!({"image_url": "nowhere"})).await;
    assert_eq!(refused.problem(422, "ValidationError")["errors"][0]["pointer"], "/image_url");
}

#[tokio::test]
async fn urls_that_are_no_pictures_are_refused_with_their_place() {
    let site = cohere().await;
    let server = site.start().await;
    let library = server.library().await;
    show(&server, &library, "Apple", &picture("a red apple")).await.expect(201);
    let before = provider(&site).pictures();
    let large =
        |bytes: usize| format!("data:image/png;base64,{}", "A".repeat(bytes.div_ceil(3) * 4));
    let cases = [
        ("file:///etc/passwd".to_owned(), "must be a data: URL"),
        ("data:image/png,words".to_owned(), "data:MEDIA_TYPE;base64,DATA"),
        ("data:text/html;base64,AAAA".to_owned(), "\"text/html\" is not one of image/png"),
        ("data:image/png;base64,A*==".to_owned(), "not base64"),
        ("data:image/png;base64,".to_owned(), "has no bytes"),
        (String::new(), "must have 1 to 8192 bytes"),
        (format!("http://h/{}", "x".repeat(9_000)), "must have 1 to 8192 bytes"),
        // What Cohere takes, and what anybody does.
        (large((5 << 20) + 1), "the limit is 5242880"),
        (large((20 << 20) + 1), "the limit is 20971520"),
        (large(21 << 20), "at most 20971520 bytes"),
    ];
    for (url, part) in cases {
        let head: String = url.chars().take(40).collect();
        let refused = show(&server, &library, "x", &url).await;
        let problem = refused.problem(422, "ValidationError");
        assert_eq!(problem["errors"][0]["pointer"], "/vectors/0/image_url", "{head}");
        let detail = problem["errors"][0]["detail"].as_str().expect("a text");
        assert!(detail.contains(part) && detail.len() < 400, "{head}: {detail}");
        let refused = search(&server, &library, &json!({"type": "image", "image_url": url})).await;
        let problem = refused.problem(422, "ValidationError");
        assert_eq!(problem["errors"][0]["pointer"], "/queries/0/image_url", "{head}");
    }
    let passage = json!({"title": "x", "vectors": [{"type": "text", "image_url": picture("x")}]});
    let problem = add(&server, &library, &passage).await.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/vectors/0/image_url");
    let both = json!({"type": "image", "query": "x", "image_url": picture("x")});
    let problem = search(&server, &library, &both).await.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/queries/0");
    assert_eq!(provider(&site).pictures(), before, "none of it was sent");
    let count = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
    assert_eq!(count["total"], 1);
}

/// What is said of a picture that nobody makes a vector of.
async fn missing(server: &Server, library: &str, kind: &str) -> String {
    let vector = json!({"type": kind, "image_url": "http://h/p.png"});
    let body = json!({"title": "x", "vectors": [vector]});
    let problem = add(server, library, &body).await.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/vectors/0/embedding");
    problem["errors"][0]["detail"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn without_a_provider_that_is_marked_the_error_says_what_to_set() {
    let mut site = Site::new().await;
    let server = site.start().await;
    let (texts, given) = (server.library().await, server.vector_library(2).await);
    // The library's model would be the field's, or there is none.
    let detail = missing(&server, &texts, "image").await;
    assert!(detail.starts_with("is required: ") && detail.contains("COHERE_IMAGES"), "{detail}");
    let path = format!("/v1/libraries/{given}/vector-fields/own");
    let field = json!({ "dimension": 3 });
    server.send(server.request(Method::PUT, &path).json(&field)).await.expect(200);
    let detail = missing(&server, &given, "own").await;
    assert!(detail.contains("COHERE_IMAGES and OPENAI_IMAGES"), "{detail}");
    let query = json!({"type": "text", "image_url": picture("x")});
    let problem = search(&server, &texts, &query).await.problem(422, "ValidationError");
    assert_eq!(problem["errors"][0]["pointer"], "/queries/0/image_url");
    let detail = problem["errors"][0]["detail"].as_str().expect("a text");
    assert!(detail.contains("set COHERE_IMAGES to true"), "{detail}");
    server.terminate();
    server.ended().await;
    // Marked, and yet the field has no model, because callers gave the first vector.
    site.set("COHERE_IMAGES", "true");
    let server = site.start().await;
    let body = json!({"title": "x", "vectors": [{"type": "image", "embedding": vector("x")}]});
    add(&server, &texts, &body).await.expect(201);
    let detail = missing(&server, &texts, "image").await;
    assert!(detail.contains("`image` has no embedding model"), "{detail}");
    assert!(detail.contains("here that is cohere"), "{detail}");
    // One that is declared with a model has one, in any library.
    let path = format!("/v1/libraries/{given}/vector-fields/photo");
    let field = json!({"embedding_provider": "cohere", "embedding_model": "embed-english-v3.0"});
    server.send(server.request(Method::PUT, &path).json(&field)).await.expect(200);
    let vectors = json!([{"type": "text", "text": "x", "embedding": [1, 0]}, {"type": "photo", "image_url": picture("a red apple")}]);
    add(&server, &given, &json!({"title": "Apple", "vectors": vectors})).await.expect(201);
    let by_text = json!({"type": "photo", "query": "apple"});
    assert_eq!(found(&server, &given, by_text).await, ["Apple"]);
}

#[tokio::test]
async fn a_provider_that_fails_is_told_and_one_at_its_limit_is_waited_for() {
    for mut site in [cohere().await, openai("voyage").await] {
        site.set("EMBEDDING_TIMEOUT_SECONDS", "4");
        let server = site.start().await;
        let library = server.library().await;
        // So that the titles, which are texts, are known.
        show(&server, &library, "Apple", &picture("a red apple")).await.expect(201);
        let failed = async |trouble: Trouble, part: &str| {
            provider(&site).set_trouble(trouble);
            let answer = show(&server, &library, "Apple", &picture("a pear")).await.expect(503);
            assert_eq!(answer["type"], "/errors/embedding-unavailable", "{answer}");
            assert!(answer["detail"].as_str().expect("a text").contains(part), "{part}: {answer}");
            assert!(!answer.to_string().contains("hush-hush"));
        };
        failed(Trouble::Status(401), "Unauthorized: told to fail").await;
        failed(Trouble::Malformed, "not what was expected").await;
        failed(Trouble::Short, "vectors of 1 dimensions instead of 1024").await;
        let tried = provider(&site).refused();
        failed(Trouble::Status(500), "").await;
        assert!(provider(&site).refused() > tried + 1, "it is tried again");
        provider(&site).set_trouble(Trouble::None);
        provider(&site).set_limited(2);
        let before = provider(&site).pictures();
        show(&server, &library, "Pear", &picture("a pear")).await.expect(201);
        assert_eq!(provider(&site).pictures(), before + 1);
        let count = server.get(&format!("/v1/libraries/{library}/documents")).await.expect(200);
        assert_eq!(count["total"], 2, "nothing of what failed is there");
        assert!(!server.log().contains("hush-hush"));
    }
}

#[tokio::test]
async fn pictures_cost_what_is_said_of_them_and_a_spent_budget_refuses_them() {
    let mut site = openai("jina").await;
    // A token of a text is free, that of a picture a thousandth of a dollar: ten cents a picture.
    site.set("EMBEDDING_PRICES", "openai/clip=0/1000");
    let server = site.start().await;
    let library = server.library().await;
    show(&server, &library, "Apple", &picture("a red apple")).await.expect(201);
    let costs = async || server.get("/v1/costs").await.expect(200)["total"].clone();
    let total = costs().await;
    let spent = total["cost_usd"].as_f64().expect("a number");
    assert!((spent - 0.1).abs() < 1e-9, "{total}");
    // The title, and the picture.
    assert_eq!((&total["texts"], &total["tokens"]), (&json!(2), &json!(105)));
    // The same one again is cached, and saved.
    show(&server, &library, "Apple", &picture("a red apple")).await.expect(201);
    assert_eq!(costs().await["cost_usd"], total["cost_usd"]);
    let budget = json!({"amount_usd": 0.1, "refuse": true});
    let request = server.request(Method::PUT, "/v1/costs/budget").json(&budget);
    server.send(request).await.expect(200);
    let refused = show(&server, &library, "Apple", &picture("a pear")).await;
    refused.expect_status(402);
    assert_eq!(provider(&site).pictures(), 1);
}

#[tokio::test]
async fn marks_that_nobody_could_follow_are_refused_at_the_start() {
    for (settings, part) in [
        (
            vec![("COHERE_IMAGES", "true")],
            "COHERE_IMAGES is \"true\" (environment): set COHERE_API_KEY",
        ),
        (vec![("OPENAI_API_KEY", "k"), ("OPENAI_IMAGES", "jina")], "set OPENAI_BASE_URL"),
        (
            vec![("OPENAI_BASE_URL", "http://h/v1"), ("OPENAI_IMAGES", "clip")],
            "one of none, jina, vllm, voyage",
        ),
    ] {
        let mut site = Site::bare();
        for (name, value) in settings {
            site.set(name, value);
        }
        let output = site.command().arg("serve").output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
    }
}
