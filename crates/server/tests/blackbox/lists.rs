//! Documents in pages, by filters, and how many have which values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::vectors::Seeded;
use crate::harness::{Answer, Server, Site, until};

/// A library of 30 documents: the title is the number, its metadata what the number is.
async fn numbers(server: &Server) -> String {
    let library = server.vector_library(2).await;
    let documents: Vec<Value> = (0..30).map(number).collect();
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    let added = server.post(&path, &json!({ "documents": documents })).await.expect(201);
    assert_eq!(added["successful"], 30);
    library
}

fn number(n: u32) -> Value {
    let parity = if n.is_multiple_of(2) { "even" } else { "odd" };
    json!({
        "title": n.to_string(), "tags": [parity, if n < 10 { "digit" } else { "number" }],
        "metadata": {"n": n, "of": {"three": n.is_multiple_of(3)}, "ends": n % 10},
        "chunks": [
            {"text": format!("The number {n} is {parity}."), "embedding": [1.0, f64::from(n) / 10.0]},
        ],
    })
}

/// A page of documents, with a query string whose values are escaped here.
async fn list(server: &Server, library: &str, query: &[(&str, &str)]) -> Answer {
    let escaped =
        |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    server.get(&format!("/v1/libraries/{library}/documents?{}", pairs.join("&"))).await
}

fn titles(page: &Value) -> Vec<String> {
    let documents = page["documents"].as_array().expect("documents").iter();
    documents.map(|it| it["metadata"]["title"].as_str().expect("a title").to_owned()).collect()
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_list_is_of_what_passes_a_filter_in_pages_and_by_cursors() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let odd = r#"{"tags": "odd", "of.three": false}"#;
    let expected = names((0..30).filter(|n| n % 2 == 1 && n % 3 != 0));
    let whole = list(&server, &library, &[("filter", odd)]).await.expect(200);
    assert_eq!((titles(&whole), &whole["total"]), (expected.clone(), &json!(10)));
    assert_eq!((&whole["page"], &whole["page_size"]), (&json!(1), &json!(50)));
    assert!(whole["next_cursor"].is_null());
    assert!(whole["documents"][0]["chunks"][0].get("embedding").is_none());
    let conditions = r#"[{"field": "n", "operator": "lt", "value": 3}]"#;
    let few = [("filter", conditions), ("include_embeddings", "true")];
    let few = list(&server, &library, &few).await.expect(200);
    assert_eq!(titles(&few), names(0..3));
    assert_eq!(few["documents"][1]["chunks"][0]["embedding"], json!([1.0, 0.1]));

    // By numbers of pages, and by cursors from any of them.
    let mut paged = Vec::new();
    for page in 1..=4 {
        let query = [("filter", odd), ("page_size", "3"), ("page", &page.to_string())];
        let answer = list(&server, &library, &query).await.expect(200);
        assert_eq!((&answer["page"], &answer["total"]), (&json!(page), &json!(10)));
        assert_eq!(answer["next_cursor"].is_null(), page == 4, "{page}");
        paged.extend(titles(&answer));
    }
    assert_eq!(paged, expected);
    let behind = [("filter", odd), ("page", "5"), ("page_size", "3")];
    let behind = list(&server, &library, &behind).await.expect(200);
    assert_eq!((titles(&behind), &behind["next_cursor"]), (vec![], &Value::Null));
    for (filter, expected) in [(odd, expected), ("", names(0..30))] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = [("filter", filter), ("page_size", "4"), ("cursor", &cursor)];
            let page = list(&server, &library, &query).await.expect(200);
            assert_eq!(page["page"].is_null(), !cursor.is_empty());
            assert!(page["documents"].as_array().expect("documents").len() <= 4);
            seen.extend(titles(&page));
            // What is written meanwhile changes nothing of what is there.
            server
                .post(&format!("/v1/libraries/{library}/documents/with-embeddings"), &number(2))
                .await
                .expect(201);
            let Some(next) = page["next_cursor"].as_str() else { break };
            next.clone_into(&mut cursor);
        }
        let (old, new) = seen.split_at(expected.len());
        assert_eq!(old, expected);
        assert!(new.iter().all(|title| title == "2"), "{new:?}");
        let added = r#"{"title": "2", "document_id": {"$exists": true}}"#;
        let all = list(&server, &library, &[("filter", added)]).await.expect(200);
        for extra in all["documents"].as_array().expect("documents").iter().skip(1) {
            let id = extra["id"].as_str().expect("an id");
            server.delete(&format!("/v1/documents/{id}")).await.expect_status(204);
        }
    }
}

#[tokio::test]
async fn a_list_that_is_asked_for_wrongly_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    for (query, pointer) in [
        (vec![("filter", "{")], "/query/filter"),
        (vec![("filter", "\"x\"")], "/query/filter"),
        (vec![("filter", r#"{"a": {"$like": 1}}"#)], "/query/filter/a/$like"),
        (vec![("cursor", "x")], "/query/cursor"),
        (vec![("cursor", "1.x")], "/query/cursor"),
        (vec![("cursor", "1.0191f4a2-7c3e-7abc-8def-0123456789ab"), ("page", "2")], "/query/page"),
        (vec![("page", "0")], "/query/page"),
        (vec![("page_size", "1001")], "/query/page_size"),
    ] {
        let refused = list(&server, &library, &query).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{query:?}");
    }
}

#[tokio::test]
async fn a_job_deletes_what_passes_a_filter() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let others = numbers(&server).await;
    let body = json!({"library_id": library, "filter": {"tags": "odd", "n": {"$gte": 10}}});
    let job = server.submit("batch-delete", &body).await;
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let result = json!({"deleted": 10, "chunks_deleted": 10, "documents_changed": 0});
    assert_eq!(job["result"], result);
    let count = |library: String, filter: Value| {
        let server = &server;
        async move {
            let path = format!("/v1/libraries/{library}/documents/count");
            let counted = server.post(&path, &json!({ "filter": filter })).await.expect(200);
            counted["documents"].clone()
        }
    };
    assert_eq!(count(library.clone(), json!({})).await, 20);
    assert_eq!(count(library.clone(), json!({"tags": "odd", "n": {"$gte": 10}})).await, 0);
    assert_eq!(count(others, json!({})).await, 30);
    let path = "/v1/jobs/batch-delete";
    for (body, pointer) in [
        (json!({"library_id": library, "filter": {}}), "/filter"),
        (json!({"library_id": library, "filter": {"a": {"$x": 1}}}), "/filter/a/$x"),
        (json!({"filter": {"a": 1}}), "/library_id"),
        (json!({"library_id": library}), "/document_ids"),
        (json!({"library_id": library, "filter": {"a": 1}, "document_ids": ["x"]}), "/filter"),
    ] {
        assert_eq!(server.post(path, &body).await.pointers(), [pointer], "{body}");
    }
}

/// A job that is killed in the middle goes on, and what it says is of all that it did.
#[tokio::test]
async fn a_deletion_by_filter_goes_on_after_a_crash() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let path = format!("/v1/libraries/{library}/documents/batch-with-embeddings");
    for from in (0..5000).step_by(1000) {
        let documents: Vec<Value> = (from..from + 1000).map(number).collect();
        server.post(&path, &json!({ "documents": documents })).await.expect(201);
    }
    let body = json!({"library_id": library, "filter": {"tags": "number"}});
    let job = server.submit("batch-delete", &body).await;
    let count = format!("/v1/libraries/{library}/documents/count");
    until("some of it is done", async || {
        let counted = server.post(&count, &json!({})).await.expect(200);
        (counted["documents"] != 5000).then_some(())
    })
    .await;
    server.kill();
    let server = site.start().await;
    let job = server.job_over(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let result = json!({"deleted": 4990, "chunks_deleted": 4990, "documents_changed": 0});
    assert_eq!(job["result"], result);
    let counted = server.post(&count, &json!({})).await.expect(200);
    assert_eq!(counted["documents"], 10);
}

fn values(facet: &Value) -> Vec<(Value, u64, u64)> {
    let values = facet["values"].as_array().expect("values").iter();
    let count = |it: &Value, name: &str| it[name].as_u64().expect("a count");
    values.map(|it| (it["value"].clone(), count(it, "documents"), count(it, "chunks"))).collect()
}

#[tokio::test]
async fn values_are_counted_over_what_passes() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let path = format!("/v1/libraries/{library}/facets");
    let body = json!({
        "fields": ["tags", {"field": "ends", "limit": 3}, "of.three", "custom.of.three", "absent"],
    });
    let all = server.post(&path, &body).await;
    assert!(all.seq() > 0);
    let all = all.expect(200);
    assert_eq!((&all["documents"], &all["chunks"]), (&json!(30), &json!(30)));
    assert!(all["query_time_ms"].is_number());
    let facets = all["facets"].as_array().expect("facets");
    let fields: Vec<&Value> = facets.iter().map(|facet| &facet["field"]).collect();
    assert_eq!(fields, ["tags", "ends", "of.three", "custom.of.three", "absent"]);
    assert!(facets.iter().all(|facet| facet["relation"] == "exact"));
    let tags = [("number", 20), ("even", 15), ("odd", 15), ("digit", 10)];
    assert_eq!(values(&facets[0]), tags.map(|(tag, count)| (json!(tag), count, count)));
    assert_eq!(values(&facets[1]), [0, 1, 2].map(|end| (json!(end), 3, 3)));
    assert_eq!(facets[1]["other_values"], 7);
    let three = [(json!(false), 20, 20), (json!(true), 10, 10)];
    assert_eq!((values(&facets[2]), values(&facets[3])), (three.to_vec(), three.to_vec()));
    assert_eq!((values(&facets[4]), &facets[4]["other_values"]), (vec![], &json!(0)));

    // A document of several passages counts once; what is deleted, or was not there then, not at all.
    let before = server.get(&format!("/v1/libraries/{library}")).await.seq();
    let several = json!({
        "title": "several", "tags": ["odd"],
        "chunks": [
            {"text": "a", "embedding": [1, 0], "metadata": {"part": "x"}},
            {"text": "b", "embedding": [1, 0], "metadata": {"part": "y"}},
            {"text": "c", "embedding": [1, 0], "metadata": {"part": "x"}},
        ],
    });
    let documents = format!("/v1/libraries/{library}/documents");
    server.post(&format!("{documents}/with-embeddings"), &several).await.expect(201);
    let even = json!({"filter": {"tags": "even"}});
    server.post(&format!("{documents}/delete"), &even).await.expect(200);
    let body = json!({"fields": ["part", "tags"], "filter": {"tags": "odd"}});
    let now = server.post(&path, &body).await.expect(200);
    assert_eq!((&now["documents"], &now["chunks"]), (&json!(16), &json!(18)));
    assert_eq!(values(&now["facets"][0]), [(json!("x"), 1, 2), (json!("y"), 1, 1)]);
    let tags = [("odd", 16, 18), ("number", 10, 10), ("digit", 5, 5)];
    assert_eq!(values(&now["facets"][1]), tags.map(|(tag, a, b)| (json!(tag), a, b)));
    let then = server.post(&format!("{path}?as_of={before}"), &body).await.expect(200);
    assert_eq!(values(&then["facets"][1])[0], (json!("odd"), 15, 15));
}

#[tokio::test]
async fn searches_answer_with_facets_of_all_that_passes() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let filter = json!({"n": {"$gte": 10}});
    let facets = json!(["tags", {"field": "ends", "limit": 1}]);
    let expected = {
        let path = format!("/v1/libraries/{library}/facets");
        let body = json!({"fields": facets, "filter": filter});
        server.post(&path, &body).await.expect(200)["facets"].clone()
    };
    assert_eq!(expected[0]["values"][0], json!({"value": "number", "documents": 20, "chunks": 20}));
    for (route, body) in [
        ("embedding", json!({"embedding": [1, 0]})),
        ("embedding", json!({"embedding": [1, 0], "query": "number", "mode": "hybrid"})),
        ("keyword", json!({"query": "even"})),
        ("filtered", json!({"query": "even", "mode": "keyword"})),
    ] {
        let mut body = body;
        body["k"] = json!(2);
        body["facets"] = facets.clone();
        body["filter"] = filter.clone();
        let path = format!("/v1/libraries/{library}/search/{route}");
        let answer = server.post(&path, &body).await.expect(200);
        assert_eq!(answer["total_results"], 2, "{route}");
        assert_eq!(answer["facets"], expected, "{route}");
    }
    let path = format!("/v1/libraries/{library}/search/keyword");
    let without = server.post(&path, &json!({"query": "even"})).await.expect(200);
    assert_eq!(without.get("facets"), None);
    let all = server.post(&path, &json!({"query": "even", "facets": ["tags"]})).await.expect(200);
    assert_eq!(all["facets"][0]["values"][0]["documents"], 20, "of the whole library");
    for (facets, pointer) in [
        (json!([]), "/facets"),
        (json!("tags"), "/facets"),
        (json!([1]), "/facets/0"),
        (json!([{"limit": 1}]), "/facets/0/field"),
        (json!([{"field": "a", "limit": 0}]), "/facets/0/limit"),
        (json!(["a", {"field": "a", "limit": 1001}]), "/facets/1/limit"),
        (json!(["text"]), "/facets/0"),
        (json!([{"field": "chunk_id"}]), "/facets/0/field"),
        (json!(vec!["a"; 21]), "/facets"),
    ] {
        let refused = server.post(&path, &json!({"query": "even", "facets": facets})).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{facets}");
    }
    let path = format!("/v1/libraries/{library}/facets");
    assert_eq!(server.post(&path, &json!({})).await.pointers(), ["/fields"]);
}

/// While documents come and go, counts are of one state: the numbers of a document's values agree.
#[tokio::test]
async fn facets_are_of_one_state() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.vector_library(2).await;
    let (client, of) = (server.client.clone(), library.clone());
    let writing = tokio::spawn(async move {
        let mut random = Seeded::new(5);
        let path = format!("/v1/libraries/{of}/documents/with-embeddings");
        let mut ids = Vec::new();
        for n in 0..150_u32 {
            let value = random.bits() % 5;
            let mut body = number(n);
            body["metadata"] = json!({"one": value, "same": [value, value]});
            let added = client.post(&path, &body).await.expect(201);
            ids.push(added["id"].as_str().expect("an id").to_owned());
            if n % 3 == 0 {
                let gone =
                    ids.swap_remove(usize::try_from(random.bits() % 7).expect("small") % ids.len());
                client.delete(&format!("/v1/documents/{gone}")).await.expect_status(204);
            }
        }
    });
    let path = format!("/v1/libraries/{library}/facets");
    let mut seen = BTreeSet::new();
    while !writing.is_finished() {
        let body = json!({"fields": ["one", "same", "tags"]});
        let answer = server.post(&path, &body).await;
        seen.insert(answer.seq());
        let answer = answer.expect(200);
        let (one, same) = (values(&answer["facets"][0]), values(&answer["facets"][1]));
        assert_eq!(one, same);
        let sum: u64 = one.iter().map(|(_value, documents, _chunks)| documents).sum();
        assert_eq!(json!(sum), answer["documents"]);
        let tags: BTreeMap<String, u64> = values(&answer["facets"][2])
            .into_iter()
            .map(|(value, documents, _chunks)| (value.to_string(), documents))
            .collect();
        let tag = |name: &str| tags.get(&format!("\"{name}\"")).copied().unwrap_or(0);
        assert_eq!(tag("odd") + tag("even"), sum);
    }
    writing.await.expect("written");
    assert!(seen.len() > 1, "several states were looked at");
}

#[tokio::test]
async fn lists_are_in_the_order_of_a_field_page_by_page() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let documents = format!("/v1/libraries/{library}/documents");
    server.add_vectors(&library, "without", &[vec![1.0, 0.5]]).await;
    // By the last digit, the greatest first; of one digit as they came, but for those of one record.
    let ends = |descending: bool| {
        let digits: Vec<u32> = if descending { (0..10).rev().collect() } else { (0..10).collect() };
        digits.into_iter().map(|digit| names([digit, digit + 10, digit + 20]))
    };
    let sorted = |mut titles: Vec<String>| {
        titles.sort_by_key(|title| title.parse::<u32>().expect("a number"));
        titles
    };
    for (order, descending) in [("ends", false), ("ends:asc", false), ("custom.ends:desc", true)] {
        let all = list(&server, &library, &[("order_by", order)]).await.expect(200);
        assert_eq!((&all["total"], &all["next_cursor"]), (&json!(31), &Value::Null));
        let titles = titles(&all);
        for (group, expected) in titles.chunks(3).zip(ends(descending)) {
            assert_eq!(sorted(group.to_vec()), expected, "{order}");
        }
        assert_eq!(titles.last().map(String::as_str), Some("without"), "{order}");
        // Page by page: by numbers, by cursors, and in a body.
        let (mut by_number, mut by_cursor, mut in_body) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cursor, mut place) = (String::new(), Value::Null);
        for page in 1..=5 {
            let number = page.to_string();
            let numbered = [("order_by", order), ("page_size", "7"), ("page", &number)];
            let numbered = list(&server, &library, &numbered).await.expect(200);
            assert_eq!(numbered["page"], page);
            by_number.extend(self::titles(&numbered));
            let next = [("order_by", order), ("page_size", "7"), ("cursor", &cursor)];
            let next = list(&server, &library, &next).await.expect(200);
            by_cursor.extend(self::titles(&next));
            assert_eq!(next["next_cursor"], numbered["next_cursor"]);
            next["next_cursor"].as_str().unwrap_or_default().clone_into(&mut cursor);
            let body = json!({"order_by": order, "limit": 7, "cursor": place});
            let answer = server.post(&format!("{documents}/query"), &body).await.expect(200);
            in_body.extend(self::titles(&answer));
            place = answer["next_cursor"].clone();
        }
        assert_eq!((cursor.as_str(), &place), ("", &Value::Null));
        assert_eq!((&by_number, &by_cursor, &in_body), (&titles, &titles, &titles));
    }
}

#[tokio::test]
async fn an_ordered_list_is_of_what_passes_and_goes_on_whatever_is_deleted() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let documents = format!("/v1/libraries/{library}/documents");
    let filter = r#"{"tags": "even"}"#;
    let few = [("order_by", "n:desc"), ("filter", filter), ("page_size", "2")];
    let few = list(&server, &library, &few).await.expect(200);
    assert_eq!((titles(&few), &few["total"]), (names([28, 26]), &json!(15)));
    let body = json!({
        "order_by": {"field": "n", "direction": "desc"}, "limit": 2, "include_embeddings": true,
        "cursor": few["next_cursor"], "filter": {"tags": "even"},
    });
    let next = server.post(&format!("{documents}/query"), &body).await.expect(200);
    assert_eq!(titles(&next), names([24, 22]));
    assert_eq!(next["documents"][0]["chunks"][0]["embedding"], json!([1.0, 2.4]));

    // A document that goes, or changes its value, takes no other one with it.
    let mut seen = titles(&few);
    let mut cursor = few["next_cursor"].as_str().expect("a cursor").to_owned();
    let delete = format!("{documents}/delete");
    for gone in ["26", "0", "20"] {
        server.post(&delete, &json!({"filter": {"title": gone}})).await.expect(200);
        let query =
            [("order_by", "n:desc"), ("filter", filter), ("page_size", "4"), ("cursor", &cursor)];
        let page = list(&server, &library, &query).await.expect(200);
        seen.extend(titles(&page));
        page["next_cursor"].as_str().unwrap_or_default().clone_into(&mut cursor);
    }
    let expected = (1..15).rev().map(|half| half * 2).filter(|n| *n != 20);
    let seen: Vec<String> = seen.into_iter().filter(|title| title != "20").collect();
    assert_eq!(seen, names(expected));
}

#[tokio::test]
async fn an_order_that_is_none_is_refused() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = numbers(&server).await;
    let first = [("order_by", "n"), ("page_size", "2")];
    let first = list(&server, &library, &first).await.expect(200);
    let cursor = first["next_cursor"].as_str().expect("a cursor").to_owned();
    let plain = list(&server, &library, &[("page_size", "2")]).await.expect(200);
    let plain = plain["next_cursor"].as_str().expect("a cursor").to_owned();
    for (query, pointer) in [
        (vec![("order_by", "text")], "/query/order_by"),
        (vec![("order_by", "chunk_id:desc")], "/query/order_by"),
        (vec![("order_by", ":desc")], "/query/order_by"),
        (vec![("order_by", "n:dsc")], "/query/order_by"),
        (vec![("metadata_filter", "{")], "/query/metadata_filter"),
        (vec![("filter", "{}"), ("metadata_filter", "{}")], "/query/metadata_filter"),
        (vec![("order_by", "n"), ("cursor", "0000")], "/query/cursor"),
        (vec![("order_by", "n"), ("cursor", &plain)], "/query/cursor"),
        (vec![("order_by", "n:desc"), ("cursor", &cursor)], "/query/cursor"),
        (vec![("cursor", &cursor)], "/query/cursor"),
        (vec![("order_by", "n"), ("cursor", &cursor), ("page", "2")], "/query/page"),
        (vec![("order_by", "n"), ("page", "11"), ("page_size", "1000")], "/query/page"),
    ] {
        let refused = list(&server, &library, &query).await;
        refused.problem(422, "ValidationError");
        assert_eq!(refused.pointers(), [pointer], "{query:?}");
    }
    let path = format!("/v1/libraries/{library}/documents/query");
    for (body, pointer) in [
        (json!({"order_by": 1}), "/order_by"),
        (json!({"order_by": "text"}), "/order_by"),
        (json!({"order_by": {"direction": "asc"}}), "/order_by/field"),
        (json!({"order_by": {"field": "n", "direction": "down"}}), "/order_by/direction"),
        (json!({"order_by": "n:desc", "cursor": cursor}), "/cursor"),
        (json!({"cursor": cursor}), "/cursor"),
    ] {
        assert_eq!(server.post(&path, &body).await.pointers(), [pointer], "{body}");
    }
    let search = json!({"embedding": [1, 0], "order_by": "n"});
    let refused = server.find(&library, &search).await;
    assert_eq!(refused.pointers(), ["/order_by"]);
}
