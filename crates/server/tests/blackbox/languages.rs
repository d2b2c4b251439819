//! Libraries of several languages: what is found, shown, kept, changed and refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, Site};

/// A library of a language with these texts, each a document with a vector of its own.
async fn library(server: &Server, language: &str, texts: &[&str]) -> String {
    let body = json!({"name": language, "embedding_dimension": 2, "language": language});
    let library = server.library_with(&body).await;
    for (n, text) in texts.iter().enumerate() {
        add(server, &library, (&format!("t{n}"), text)).await;
    }
    library
}

async fn add(server: &Server, library: &str, (title, text): (&str, &str)) {
    let path = format!("/v1/libraries/{library}/documents/with-embeddings");
    let body = json!({"title": title, "chunks": [{"text": text, "embedding": [1.0, 0.5]}]});
    server.post(&path, &body).await.expect(201);
}

async fn search(server: &Server, library: &str, body: &Value) -> Value {
    server.post(&format!("/v1/libraries/{library}/search/keyword"), body).await.expect(200)
}

/// The titles of what is found, in their order.
fn titles(answer: &Value) -> Vec<String> {
    let hits = answer["results"].as_array().expect("results").iter();
    let title = |hit: &Value| hit["document_title"].as_str().expect("a title").to_owned();
    let mut titles: Vec<String> = hits.map(title).collect();
    titles.sort();
    titles
}

async fn found(server: &Server, library: &str, query: &str) -> Vec<String> {
    titles(&search(server, library, &json!({ "query": query })).await)
}

async fn patch(server: &Server, library: &str, body: &Value) -> Answer {
    server.raw(Method::PATCH, &format!("/v1/libraries/{library}"), body.to_string()).await
}

async fn language_of(server: &Server, library: &str) -> Value {
    let path = format!("/v1/libraries/{library}");
    server.get(&path).await.expect(200)["metadata"]["language"].clone()
}

#[tokio::test]
async fn words_are_found_in_the_forms_of_their_language() {
    let site = Site::new().await;
    let server = site.start().await;
    let german = ["Die H\u{e4}user der Stadt", "Ein Haus am See", "Der Hausmeister"];
    let french = ["Les droits de l'homme", "Des \u{e9}coles pour tous", "Un \u{e9}colier"];
    let russian = [
        "\u{427}\u{438}\u{442}\u{430}\u{442}\u{44c} \u{43a}\u{43d}\u{438}\u{433}\u{443}",
        "\u{41a}\u{43d}\u{438}\u{433}\u{438} \u{43e} \u{43c}\u{43e}\u{440}\u{435}",
        "\u{41c}\u{43e}\u{440}\u{435}",
    ];
    let spanish = ["Una canci\u{f3}n nueva", "Las canciones viejas", "El ni\u{f1}o corre"];
    let books = "\u{43a}\u{43d}\u{438}\u{433}\u{430}\u{43c}\u{438}";
    for (language, texts, cases) in [
        (
            "de",
            german,
            &[
                ("H\u{c4}USERN", &["t0", "t1"][..]),
                ("haeuser", &["t0", "t1"]),
                ("der", &["t0", "t2"]),
                ("der see", &["t1"]),
            ][..],
        ),
        (
            "fr",
            french,
            &[
                ("hommes", &["t0"]),
                ("l\u{2019}\u{e9}cole", &["t1"]),
                ("+\"droit de l'homme\"", &["t0"]),
                ("d'\u{e9}co*", &["t1", "t2"]),
            ],
        ),
        ("ru", russian, &[(books, &["t0", "t1"]), ("\u{43c}\u{43e}\u{440}\u{44f}", &["t1", "t2"])]),
        (
            "es",
            spanish,
            &[("CANCI\u{d3}N -vieja", &["t0"]), ("cancion", &["t0", "t1"]), ("correr", &["t2"])],
        ),
        ("none", german, &[("haus", &["t1"]), ("h\u{e4}usern", &[]), ("der", &["t0", "t2"])]),
        ("en", german, &[("haus", &["t1"]), ("h\u{e4}usern", &[])]),
    ] {
        let library = library(&server, language, &texts).await;
        assert_eq!(language_of(&server, &library).await, language);
        for (query, expected) in cases {
            assert_eq!(found(&server, &library, query).await, *expected, "{language} {query}");
        }
    }
    // What is shown is what was found, and both searches of a hybrid one are of the language.
    let library = library(&server, "fr", &french).await;
    let body = json!({"query": "hommes", "highlight": true});
    let answer = search(&server, &library, &body).await;
    assert_eq!(answer["results"][0]["highlights"], json!(["Les droits de l'<em>homme</em>"]));
    let body = json!({"query": "+hommes", "embedding": [1, 0], "mode": "hybrid", "explain": true});
    let path = format!("/v1/libraries/{library}/search/embedding");
    let answer = server.post(&path, &body).await.expect(200);
    assert_eq!(titles(&answer), ["t0"]);
    assert_eq!(answer["explain"]["keywords"]["terms"], json!({"homm": 1}));
}

#[tokio::test]
async fn a_language_is_told_changed_and_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let english = server.vector_library(2).await;
    assert_eq!(language_of(&server, &english).await, "en");
    let body = json!({"name": "n", "embedding_dimension": 2, "language": "de"});
    let made = server.post("/v1/libraries", &body).await.expect(201);
    assert_eq!(made["metadata"]["language"], "de");
    let library = made["id"].as_str().expect("an id").to_owned();
    let listed = server.get("/v1/libraries").await.expect(200);
    let of = |id: &str| {
        let mut all = listed.as_array().expect("libraries").iter();
        let one = all.find(|one| one["id"] == id).expect("the library");
        one["metadata"]["language"].clone()
    };
    assert_eq!((of(&english), of(&library)), (json!("en"), json!("de")));

    // What is left out stays, with null as well.
    let answer =
        patch(&server, &library, &json!({"name": "m", "language": null})).await.expect(200);
    assert_eq!((&answer["name"], &answer["metadata"]["language"]), (&json!("m"), &json!("de")));
    let answer = patch(&server, &library, &json!({"language": "tr"})).await.expect(200);
    assert_eq!((&answer["name"], &answer["metadata"]["language"]), (&json!("m"), &json!("tr")));
    let updates = server.get("/v1/events?after=0&event_types=library.updated").await.expect(200);
    let updates: Vec<_> = updates["events"].as_array().expect("events").iter().collect();
    assert_eq!(updates[0]["data"].get("language"), None);
    assert_eq!(updates[1]["data"]["language"], "tr");

    let codes = "ar, da, de, en, es, fi, fr, hu, it, nl, no, pt, ro, ru, sv, ta, tr, none";
    for wrong in [json!("xx"), json!("EN"), json!(""), json!("english")] {
        let bodies = [json!({"name": "x", "language": wrong}), json!({ "language": wrong })];
        let answers = [
            server.post("/v1/libraries", &bodies[0]).await,
            patch(&server, &library, &bodies[1]).await,
        ];
        for answer in answers {
            let problem = answer.problem(422, "ValidationError").to_string();
            assert_eq!(answer.pointers(), ["/language"], "{wrong}");
            assert!(problem.contains(codes), "{problem}");
        }
    }
    let number = server.post("/v1/libraries", &json!({"name": "x", "language": 3})).await;
    number.problem(422, "ValidationError");
    assert_eq!(number.pointers(), ["/language"]);
    assert_eq!(language_of(&server, &library).await, "tr");
    assert_eq!(server.get("/v1/libraries").await.expect(200).as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_change_of_language_changes_what_is_found_and_outlives_restarts_and_backups() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = library(&server, "none", &["Die H\u{e4}user", "Ein Haus"]).await;
    assert_eq!(found(&server, &library, "h\u{e4}usern").await, [""; 0]);
    let seq = patch(&server, &library, &json!({"language": "de"})).await.seq();
    let body = json!({"query": "h\u{e4}usern", "min_seq": seq});
    assert_eq!(titles(&search(&server, &library, &body).await), ["t0", "t1"]);
    // What was before is read in the language that is now.
    let body = json!({"query": "h\u{e4}usern", "as_of": seq - 1});
    assert_eq!(titles(&search(&server, &library, &body).await), ["t0", "t1"]);
    add(&server, &library, ("t2", "Dem Hause")).await;
    assert_eq!(found(&server, &library, "haus").await, ["t0", "t1", "t2"]);
    let target = site.path("backups");
    let target = target.to_string_lossy();
    let run = |arguments: &[&str]| {
        let output = site.command().args(arguments).output().expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    server.terminate();
    assert!(server.ended().await.success());
    let server = site.start().await;
    assert_eq!(language_of(&server, &library).await, "de");
    assert_eq!(found(&server, &library, "h\u{e4}usern").await, ["t0", "t1", "t2"]);
    // Unclean as well, from the log alone.
    patch(&server, &library, &json!({"language": "none"})).await.expect(200);
    patch(&server, &library, &json!({"language": "sv"})).await.expect(200);
    server.kill();
    let server = site.start().await;
    assert_eq!(language_of(&server, &library).await, "sv");
    patch(&server, &library, &json!({"language": "de"})).await.expect(200);
    server.terminate();
    assert!(server.ended().await.success());
    run(&["backup", &target]);
    let mut restored = Site::bare();
    restored.data_dir = site.path("restored");
    run(&["restore", &target, &restored.data_dir.to_string_lossy()]);
    let server = restored.start().await;
    assert_eq!(language_of(&server, &library).await, "de");
    assert_eq!(found(&server, &library, "h\u{e4}usern").await, ["t0", "t1", "t2"]);
}

/// Each answer is of one language from its words to its highlights, whatever becomes of the library
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_during_a_change_is_of_one_language() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = library(&server, "de", &["Die H\u{e4}user", "Ein Haus", "Hausern"]).await;
    let body = json!({"query": "h\u{e4}usern", "highlight": true, "explain": true, "count": true});
    let changes = async {
        for language in ["none", "de"].into_iter().cycle().take(40) {
            let seq = patch(&server, &library, &json!({ "language": language })).await.seq();
            // Who changed it finds what it finds now.
            let asked = json!({"query": "h\u{e4}usern", "min_seq": seq});
            let expected = if language == "de" { 3 } else { 1 };
            assert_eq!(titles(&search(&server, &library, &asked).await).len(), expected);
        }
    };
    let searches = async {
        let mut seen = [0, 0];
        for _again in 0..200 {
            let answer = search(&server, &library, &body).await;
            let terms = &answer["explain"]["keywords"]["terms"];
            let german = *terms == json!({"haus": 3});
            assert!(german || *terms == json!({"hausern": 1}), "{answer}");
            let expected = if german { &["t0", "t1", "t2"][..] } else { &["t2"] };
            assert_eq!(titles(&answer), expected);
            assert_eq!(answer["total_matches"]["value"], expected.len());
            for hit in answer["results"].as_array().expect("results") {
                assert_eq!(hit["highlights"].as_array().map(Vec::len), Some(1), "{hit}");
            }
            seen[usize::from(german)] += 1;
        }
        seen
    };
    let ((), seen) = tokio::join!(changes, searches);
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[tokio::test]
async fn pages_of_words_are_of_one_language() {
    let site = Site::new().await;
    let server = site.start().await;
    let texts = ["Haus", "H\u{e4}user", "H\u{e4}usern"];
    let library = library(&server, "de", &texts).await;
    let body = json!({"query": "haus", "k": 1, "cursor": "*"});
    let first = search(&server, &library, &body).await;
    let next = json!({"query": "haus", "k": 1, "cursor": first["next_cursor"]});
    let second = search(&server, &library, &next).await;
    assert_ne!(titles(&first), titles(&second));
    patch(&server, &library, &json!({"language": "none"})).await.expect(200);
    let path = format!("/v1/libraries/{library}/search/keyword");
    let refused = server.post(&path, &next).await;
    refused.problem(422, "ValidationError");
    assert_eq!(refused.pointers(), ["/cursor"]);
    let again = search(&server, &library, &body).await;
    assert_eq!(titles(&again), ["t0"]);
    // Back in the language of the first page, it goes on.
    patch(&server, &library, &json!({"language": "de"})).await.expect(200);
    assert_eq!(titles(&search(&server, &library, &next).await), titles(&second));
}
