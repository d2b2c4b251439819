//! What embedding costs: counted as the provider bills it, told and refused as budgets say.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::receiver::Receiver;
use crate::harness::schema::fault;
use crate::harness::sse::EventStream;
use crate::harness::{Answer, Client, Server, Site, until};

/// A text costs 100 tokens, and a token a thousandth of a dollar: ten cents.
async fn site() -> Site {
    let mut site = Site::new().await;
    site.set("EMBEDDING_PRICES", "cohere/embed-english-v3.0=1000");
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    site.provider.as_ref().expect("provider").set_tokens_per_text(100);
    site
}

async fn add(client: &Client, library: &str, text: &str) -> Answer {
    let body = json!({"title": "a title", "texts": [text]});
    client.post(&format!("/v1/libraries/{library}/documents"), &body).await
}

/// Adds documents of new texts.
async fn spend(client: &Client, library: &str, texts: std::ops::Range<u32>) {
    for n in texts {
        add(client, library, &format!("text {n}")).await.expect(201);
    }
}

async fn search(client: &Client, library: &str, query: &str) -> Answer {
    client.post(&format!("/v1/libraries/{library}/search"), &json!({"query": query, "k": 1})).await
}

async fn set(client: &Client, body: &Value) -> Answer {
    client.raw(Method::PUT, "/v1/costs/budget", body.to_string()).await
}

async fn costs(client: &Client, query: &str) -> Value {
    client.get(&format!("/v1/costs?{query}")).await.expect(200)
}

fn close(value: &Value, wanted: f64) -> bool {
    (value.as_f64().expect("a number") - wanted).abs() < 1e-9
}

/// The only budget.
async fn budget(client: &Client) -> Value {
    let list = client.get("/v1/costs/budgets").await.expect(200);
    assert_eq!(list["total"], 1, "{list}");
    list["budgets"][0].clone()
}

/// What was told of budgets: the type and the percentage.
async fn told(client: &Client) -> Vec<(String, u64)> {
    let events = client.events("cost.*").await;
    let of = |event: &Value| {
        let percent = event["data"]["percent"].as_u64().expect("a percentage");
        (event["type"].as_str().expect("a type").to_owned(), percent)
    };
    events.iter().map(of).collect()
}

fn reached(percents: &[u64]) -> Vec<(String, u64)> {
    percents.iter().map(|percent| ("cost.threshold_reached".to_owned(), *percent)).collect()
}

#[tokio::test]
async fn costs_are_of_the_providers_own_counts_and_what_is_cached_is_saved() {
    let site = site().await;
    let server = site.start().await;
    let (one, other) = (server.library().await, server.library().await);
    spend(&server, &one, 0..3).await;
    spend(&server, &other, 3..4).await;
    let total = costs(&server, "group_by=none").await;
    assert_eq!((&total["rows"], &total["total_rows"]), (&json!([]), &json!(0)));
    let total = &total["total"];
    assert_eq!((&total["texts"], &total["tokens"]), (&json!(4), &json!(400)), "{total}");
    assert!(close(&total["cost_usd"], 0.4) && close(&total["saved_usd"], 0.0), "{total}");
    assert_eq!((&total["priced"], &total["unpriced_tokens"]), (&json!(true), &json!(0)));
    // The other library is spared what the first has paid for: six bytes are two tokens.
    spend(&server, &other, 0..2).await;
    search(&server, &one, "text 0").await.expect(200);
    let rows = costs(&server, "group_by=day,library,provider,model").await;
    let found = |library: &str| {
        let rows = rows["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["library_id"] == library).expect("its row");
        let named = [&row["provider"], &row["model"]];
        assert_eq!(named, [&json!("cohere"), &json!("embed-english-v3.0")]);
        row.clone()
    };
    assert_eq!(rows["total_rows"], 2);
    let (of_one, of_other) = (found(&one), found(&other));
    assert!(close(&of_one["cost_usd"], 0.4), "a search by text is paid for: {of_one}");
    assert!(close(&of_other["cost_usd"], 0.1) && close(&of_other["saved_usd"], 0.004));
    assert_eq!(
        (&of_other["cached_texts"], &of_other["cached_tokens"]),
        (&json!(2), &json!(4)),
        "{of_other}"
    );
    let today = of_one["day"].as_str().expect("a day");
    let alone = costs(&server, &format!("library_id={one}&from={today}&to={today}")).await;
    assert_eq!(alone["group_by"], json!(["day"]));
    assert_eq!(alone["rows"][0]["tokens"], 400);
    assert!(alone["rows"][0].get("library_id").is_none(), "it is not told apart: {alone}");
    assert_eq!(costs(&server, "to=2020-01-01").await["rows"], json!([]));
    let page = costs(&server, "group_by=library&page=2&page_size=1").await;
    assert_eq!((page["rows"].as_array().map(Vec::len), &page["total_rows"]), (Some(1), &json!(2)));
    let metrics = server.get("/metrics").await.text();
    let labels = "{provider=\"cohere\",model=\"embed-english-v3.0\"}";
    assert!(metrics.contains(&format!("arrwdb_embedding_cost_usd_total{labels} 0.5\n")));
    assert!(metrics.contains(&format!("arrwdb_embedding_saved_usd_total{labels} 0.004\n")));
    // It outlives a restart whole.
    server.terminate();
    server.ended().await;
    let server = site.start().await;
    assert_eq!(costs(&server, "group_by=day,library,provider,model").await, rows);
}

/// Follows the feed until so many events of budgets came.
async fn follow(server: &Server, count: usize) -> Vec<(String, u64)> {
    let path = "/v1/events/stream?event_types=cost.*&after=0";
    let frames = EventStream::open(server, path, None).await.events(count).await;
    let of = |frame: &crate::harness::sse::Frame| {
        let event = frame.event.clone().expect("a type");
        (event, frame.data["percent"].as_u64().expect("a percentage"))
    };
    frames.iter().map(of).collect()
}

#[tokio::test]
async fn every_threshold_is_told_once_whatever_is_killed_in_between() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let hook = json!({"url": receiver.url(), "events": ["cost.*"]});
    server.post("/v1/webhooks", &hook).await.expect(201);
    let library = server.library().await;
    let set = set(&server, &json!({"amount_usd": 1, "thresholds": [100, 50, 80]})).await;
    assert!(set.seq() > 0);
    let made = set.expect(200);
    assert_eq!((&made["library_id"], &made["refuse"]), (&Value::Null, &json!(false)));
    assert_eq!((&made["period"], &made["thresholds"]), (&json!("month"), &json!([50, 80, 100])));
    assert!(made["renews_at"].as_str().is_some_and(|at| at.contains("-01T00:00:00")), "{made}");
    spend(&server, &library, 0..4).await;
    assert!(close(&budget(&server).await["spent_usd"], 0.4), "what is not recorded yet counts");
    spend(&server, &library, 4..5).await;
    assert_eq!(follow(&server, 1).await, reached(&[50]));
    server.kill();
    let server = site.start().await;
    let found = budget(&server).await;
    assert!(close(&found["spent_usd"], 0.5) && close(&found["remaining_usd"], 0.5), "{found}");
    assert!(close(&found["percent"], 50.0) && found["exceeded"] == false, "{found}");
    spend(&server, &library, 5..8).await;
    assert_eq!(follow(&server, 2).await, reached(&[50, 80]));
    spend(&server, &library, 8..12).await;
    let mut all = reached(&[50, 80, 100]);
    all.push(("cost.budget_exceeded".to_owned(), 100));
    assert_eq!(follow(&server, 4).await, all);
    server.kill();
    let server = site.start().await;
    spend(&server, &library, 12..14).await;
    assert!(budget(&server).await["exceeded"] == true);
    let deliveries = until("the webhook is told", async || {
        let received = receiver.received();
        (received.len() >= 4).then_some(received)
    })
    .await;
    let mut types: Vec<String> = deliveries
        .iter()
        .map(|delivery| delivery.json()["type"].as_str().expect("a type").to_owned())
        .collect();
    types.sort();
    types.dedup();
    assert_eq!(types, ["cost.budget_exceeded", "cost.threshold_reached"]);
    // A clean end records everything; nothing more is told.
    server.terminate();
    server.ended().await;
    let server = site.start().await;
    assert_eq!(told(&server).await, all);
    let schema = server.get("/v1/events/schema").await.expect(200);
    for event in server.events("cost.*").await {
        assert_eq!(fault(&schema, &event), None, "{event}");
        assert_eq!(event["data"]["scope"], "tenant");
        assert!(event.get("library_id").is_none(), "{event}");
    }
}

#[tokio::test]
async fn a_budget_that_is_spent_refuses_what_costs_and_nothing_else() {
    let site = site().await;
    let server = site.start().await;
    let (library, other) = (server.library().await, server.library().await);
    let terms = json!({"library_id": library, "amount_usd": 0.3, "period": "day", "refuse": true});
    set(&server, &terms).await.expect(200);
    spend(&server, &library, 0..3).await;
    let provider = site.provider.as_ref().expect("provider");
    let calls = provider.texts();
    let refused = add(&server, &library, "text 3").await;
    let problem = refused.problem(402, "BudgetExceededError");
    let detail = problem["detail"].as_str().expect("detail");
    assert!(detail.contains(&library) && detail.contains("0.3 of 0.3 USD for today"), "{detail}");
    assert!(detail.contains("PUT /v1/costs/budget"), "it says what to do: {detail}");
    assert_eq!((&problem["library_id"], &problem["period"]), (&json!(library), &json!("day")));
    assert!(close(&problem["amount_usd"], 0.3) && close(&problem["spent_usd"], 0.3));
    assert!(problem["renews_at"].as_str().is_some_and(|at| at.contains("T00:00:00")));
    search(&server, &library, "a question").await.problem(402, "BudgetExceededError");
    let lines = "{\"title\":\"a\",\"text\":\"a new line\"}\n";
    let streamed = format!("/v1/libraries/{library}/documents/stream");
    let request = server.request(Method::POST, &streamed);
    let request = request.header("Content-Type", "application/x-ndjson").body(lines);
    let answer = server.send(request).await;
    assert!(answer.text().contains("is spent"), "{}", answer.text());
    assert_eq!(provider.texts(), calls, "the provider was not asked");
    // What is known costs nothing, and so do vectors of the caller's own.
    add(&server, &library, "text 0").await.expect(201);
    let own = vec![crate::harness::provider::vector("own")];
    server.add_vectors(&library, "own", &own).await;
    spend(&server, &other, 10..11).await;
    let metrics = server.get("/metrics").await.text();
    let count = metrics.lines().find_map(|line| line.strip_prefix("arrwdb_budget_refusals_total "));
    assert_eq!(count, Some("3"));
    // It outlives a restart, and ends when the budget is raised, deleted or asks for nothing.
    server.terminate();
    server.ended().await;
    let server = site.start().await;
    add(&server, &library, "text 4").await.expect_status(402);
    let raised = json!({"library_id": library, "amount_usd": 0.4, "period": "day", "refuse": true});
    set(&server, &raised).await.expect(200);
    add(&server, &library, "text 4").await.expect(201);
    add(&server, &library, "text 5").await.expect_status(402);
    let mut lenient = raised.clone();
    lenient["refuse"] = json!(false);
    set(&server, &lenient).await.expect(200);
    add(&server, &library, "text 5").await.expect(201);
    set(&server, &raised).await.expect(200);
    add(&server, &library, "text 6").await.expect_status(402);
    let path = format!("/v1/costs/budget?library_id={library}");
    server.delete(&path).await.expect_status(204);
    add(&server, &library, "text 6").await.expect(201);
    server.delete(&path).await.problem(404, "BudgetNotFoundError");
}

#[tokio::test]
async fn a_budget_goes_with_its_library() {
    let site = site().await;
    let server = site.start().await;
    let library = server.library().await;
    set(&server, &json!({"library_id": library, "amount_usd": 1})).await.expect(200);
    server.delete(&format!("/v1/libraries/{library}")).await.expect_status(204);
    until("its budget is gone", async || {
        let list = server.get("/v1/costs/budgets").await.expect(200);
        (list["total"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_for_its_budget_and_goes_on_when_it_is_raised() {
    let site = site().await;
    let server = site.start().await;
    let library = server.library().await;
    set(&server, &json!({"amount_usd": 0.2, "period": "total", "refuse": true})).await.expect(200);
    spend(&server, &library, 0..2).await;
    let documents: Vec<Value> =
        (2..40).map(|n| json!({"title": format!("{n}"), "text": format!("text {n}")})).collect();
    let body = json!({"library_id": library, "documents": documents, "max_retries": 0});
    let id = server.submit("batch-import", &body).await;
    let job = until("it waits", async || {
        let job = server.job(&id).await;
        assert!(job["completed_at"].is_null(), "it is not over: {job}");
        (job["status"] == "pending" && job["error"].is_string()).then_some(job)
    })
    .await;
    assert!(job["error"].as_str().is_some_and(|error| error.contains("0.2 of 0.2 USD in all")));
    assert_eq!(job["retries"], 0, "waiting is no failure of its own");
    set(&server, &json!({"amount_usd": 100, "period": "total", "refuse": true})).await.expect(200);
    let job = server.job_over(&id).await;
    assert_eq!((&job["result"]["imported"], &job["result"]["failed"]), (&json!(38), &json!(0)));
    assert!(close(&budget(&server).await["spent_usd"], 4.0));
}

/// A site whose texts are embedded by a server that speaks OpenAI's format, with this model.
async fn openai_site(model: &str) -> Site {
    let mut site = Site::new().await;
    let url = site.provider.as_ref().expect("provider").url();
    site.set("EMBEDDING_PROVIDER", "openai");
    site.set("OPENAI_BASE_URL", &format!("{url}/v1"));
    site.set("EMBEDDING_MODEL", model);
    site.set("EMBEDDING_DIMENSION", "1024");
    site
}

#[tokio::test]
async fn a_model_without_a_price_counts_as_free_and_says_so() {
    let mut site = openai_site("a-model-of-ours").await;
    let server = site.start().await;
    let library = server.library().await;
    spend(&server, &library, 0..2).await;
    let total = &costs(&server, "").await["total"];
    assert_eq!((&total["priced"], &total["unpriced_tokens"]), (&json!(false), &json!(12)));
    assert_eq!((&total["tokens"], close(&total["cost_usd"], 0.0)), (&json!(12), true), "{total}");
    // What is not known cannot be refused for its cost.
    set(&server, &json!({"amount_usd": 0.000_001, "refuse": true})).await.expect(200);
    spend(&server, &library, 2..4).await;
    server.terminate();
    server.ended().await;
    // With a price it is paid for from here on: six tokens, three dollars for a million.
    site.set("EMBEDDING_PRICES", "openai/other=1, openai/a-model-of-ours=3");
    let server = site.start().await;
    spend(&server, &library, 4..5).await;
    let total = &costs(&server, "").await["total"];
    assert_eq!((&total["tokens"], &total["unpriced_tokens"]), (&json!(30), &json!(24)));
    assert!(close(&total["cost_usd"], 0.000_018), "{total}");
    add(&server, &library, "text 5").await.expect_status(402);
}

#[tokio::test]
async fn models_that_are_known_have_a_price() {
    let site = openai_site("text-embedding-3-small").await;
    let server = site.start().await;
    let library = server.library().await;
    spend(&server, &library, 0..1).await;
    let rows = costs(&server, "group_by=provider").await;
    assert_eq!(rows["rows"][0]["provider"], "openai");
    // Six tokens at two cents for a million.
    let cost = rows["rows"][0]["cost_usd"].as_f64().expect("a number");
    assert!((cost - 0.000_000_12).abs() < 1e-15, "{rows}");
}

#[tokio::test]
async fn bad_input_is_named() {
    let site = site().await;
    let server = site.start().await;
    for (body, pointer) in [
        (json!({}), "/amount_usd"),
        (json!({"amount_usd": 0}), "/amount_usd"),
        (json!({"amount_usd": -1}), "/amount_usd"),
        (json!({"amount_usd": 1e300}), "/amount_usd"),
        (json!({"amount_usd": "1"}), "/amount_usd"),
        (json!({"amount_usd": 1, "period": "week"}), "/period"),
        (json!({"amount_usd": 1, "thresholds": [0]}), "/thresholds/0"),
        (json!({"amount_usd": 1, "thresholds": [50, 101]}), "/thresholds/1"),
        (json!({"amount_usd": 1, "thresholds": [50, 50]}), "/thresholds"),
        (json!({"amount_usd": 1, "thresholds": (1..=11).collect::<Vec<_>>()}), "/thresholds"),
        (json!({"amount_usd": 1, "thresholds": 50}), "/thresholds"),
        (json!({"amount_usd": 1, "refuse": "yes"}), "/refuse"),
        (json!({"amount_usd": 1, "library_id": "x"}), "/library_id"),
    ] {
        let answer = set(&server, &body).await;
        answer.problem(422, "ValidationError");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    let unknown = "0191f4a2-7c3e-7abc-8def-0123456789ab";
    let nowhere = json!({"amount_usd": 1, "library_id": unknown});
    set(&server, &nowhere).await.problem(404, "LibraryNotFoundError");
    for (query, name) in [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=20260101", "from"),
        ("from=2026-02-01&to=2026-01-01", "to"),
        ("group_by=week", "group_by"),
        ("library_id=x", "library_id"),
        ("page=0", "page"),
        ("page_size=1001", "page_size"),
        ("as_of=1", "as_of"),
    ] {
        let answer = server.get(&format!("/v1/costs?{query}")).await;
        answer.problem(422, "ValidationError");
        assert_eq!(answer.pointers(), [format!("/query/{name}")], "{query}");
    }
    let answer = server.delete("/v1/costs/budget?library_id=x").await;
    assert_eq!(answer.pointers(), ["/query/library_id"]);
    server.delete("/v1/costs/budget").await.problem(404, "BudgetNotFoundError");
    let mut wrong = Site::bare();
    wrong.set("EMBEDDING_PRICES", "openai/x=cheap");
    let said = wrong.command().output().expect("it ends");
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("EMBEDDING_PRICES") && said.contains("PROVIDER/MODEL=USD"), "{said}");
}

/// A job says what it has used itself, also one that somebody did not want to the end.
#[tokio::test]
async fn a_job_that_makes_vectors_anew_says_what_it_cost() {
    let mut site = Site::new().await;
    site.set("EMBEDDING_PRICES", "cohere/embed-multilingual-v3.0=1000");
    let provider = site.provider.as_ref().expect("provider");
    provider.set_tokens_per_text(7);
    let server = site.start().await;
    let library = server.library().await;
    let text = |n: usize| if n < 100 { format!("free {n}") } else { format!("stuck {n}") };
    let documents: Vec<Value> =
        (0..110).map(|n| json!({"title": format!("{n}"), "text": text(n)})).collect();
    let path = format!("/v1/libraries/{library}/documents/batch");
    server.post(&path, &json!({ "documents": documents })).await.expect(201);
    let wanted = json!({
        "library_id": library,
        "embedding_provider": "cohere",
        "embedding_model": "embed-multilingual-v3.0",
    });
    provider.set_stuck(true);
    let job = server.submit("regenerate-embeddings", &wanted).await;
    until("the first hundred are there", async || {
        (server.job(&job).await["progress"]["current"] == 100).then_some(())
    })
    .await;
    server.delete(&format!("/v1/jobs/{job}")).await.expect(200);
    let cancelled = server.job_over(&job).await;
    let cost = &cancelled["result"]["cost"];
    assert_eq!((&cancelled["status"], &cost["tokens"]), (&json!("cancelled"), &json!(700)));
    assert_eq!((&cost["cost_usd"], &cost["priced"]), (&json!(0.7), &json!(true)), "{cancelled}");
    provider.set_stuck(false);

    let job = server.job_over(&server.submit("regenerate-embeddings", &wanted).await).await;
    let cost = &job["result"]["cost"];
    assert_eq!((&job["status"], &cost["texts"]), (&json!("completed"), &json!(110)), "{job}");
    let (made, cached) = (cost["texts_embedded"].as_u64(), cost["texts_cached"].as_u64());
    let (made, cached) = (made.expect("a number"), cached.expect("a number"));
    assert_eq!((made + cached, &cost["tokens"]), (110, &json!(7 * made)), "{job}");
    assert!(made <= 10, "what the first one made is known: {job}");
}
