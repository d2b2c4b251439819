//! Webhooks as those see them who are told of events by them.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook as Verifier;

use super::events::{id, put};
use crate::harness::receiver::{Received, Receiver, Reply};
use crate::harness::{Client, Site, until};

const HOOKS: &str = "/api/v1/webhooks";

async fn site() -> Site {
    let mut site = Site::new().await;
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    site
}

/// A new webhook, as the request that makes it is answered.
async fn hook(client: &Client, receiver: &Receiver, more: Value) -> Value {
    let mut body = json!({"url": receiver.url(), "events": ["document.*"]});
    let members = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    client.post(HOOKS, &body).await.expect(201)
}

fn path(hook: &Value, rest: &str) -> String {
    format!("{HOOKS}/{}{rest}", hook["id"].as_str().expect("id"))
}

async fn received(receiver: &Receiver, count: usize) -> Vec<Received> {
    until("deliveries came", async || {
        let found = receiver.received();
        (found.len() >= count).then_some(found)
    })
    .await
}

/// Figures, once so many attempts are noted.
async fn attempts(client: &Client, hook: &Value, count: u64) -> Value {
    until("attempts are noted", async || {
        let stats = client.get(&path(hook, "/stats")).await.expect(200);
        (stats["total_deliveries"].as_u64() >= Some(count)).then_some(stats)
    })
    .await
}

fn verify(hook: &Value, delivery: &Received) {
    let secret = hook["secret"].as_str().expect("secret");
    let verifier = Verifier::new(secret).expect("a secret of Standard Webhooks");
    verifier.verify(&delivery.body, &delivery.headers).expect("a valid signature");
}

fn verify_all(hook: &Value, deliveries: &[Received]) {
    for delivery in deliveries {
        verify(hook, delivery);
    }
}

fn documents(deliveries: &[Received]) -> Vec<String> {
    let id =
        |delivery: &Received| delivery.json()["data"]["document_id"].as_str().map(str::to_owned);
    deliveries.iter().map(|delivery| id(delivery).expect("document_id")).collect()
}

#[tokio::test]
async fn a_webhook_is_made_shown_changed_and_deleted_under_every_path() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let made = hook(&server, &receiver, json!({"description": "mine", "max_retries": null})).await;
    let secret = made["secret"].as_str().expect("secret").to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 70, "{secret}");
    let of = |name: &str| made[name].clone();
    assert_eq!(of("status"), "active");
    assert_eq!(of("tenant_id"), Value::Null);
    assert_eq!(
        [of("max_retries"), of("retry_delay_seconds"), of("timeout_seconds")],
        [json!(3), json!(60), json!(30)]
    );
    let id = made["id"].as_str().expect("id");
    for prefix in [HOOKS, "/v1/webhooks", "/v1/api/v1/webhooks"] {
        let shown = server.get(&format!("{prefix}/{id}")).await.expect(200);
        assert!(!shown.to_string().contains(&secret[6..]), "the secret is shown once");
        assert_eq!(shown["description"], "mine");
        let list = server.get(&format!("{prefix}?status=active")).await.expect(200);
        assert_eq!(
            (&list["total"], &list["page"], &list["page_size"]),
            (&json!(1), &json!(1), &json!(50))
        );
        assert_eq!(list["webhooks"][0]["id"], *id);
        assert_eq!(server.get(&format!("{prefix}?status=paused")).await.expect(200)["total"], 0);
    }
    let change = json!({"status": "paused", "url": "http://example.com", "description": null});
    let changed = server.raw(Method::PATCH, &path(&made, ""), change.to_string()).await.expect(200);
    assert_eq!(changed["url"], "http://example.com/");
    assert_eq!((&changed["status"], &changed["description"]), (&json!("paused"), &json!("mine")));
    assert!(changed["updated_at"].as_str() > made["updated_at"].as_str());
    for (body, pointer) in [
        (json!({"events": ["*"]}), "/url"),
        (json!({"url": "nonsense", "events": ["*"]}), "/url"),
        (json!({"url": "ftp://example.com", "events": ["*"]}), "/url"),
        (json!({"url": "http://example.com", "events": []}), "/events"),
        (json!({"url": "http://example.com", "events": ["nonsense"]}), "/events/0"),
        (
            json!({"url": "http://example.com", "events": ["*"], "timeout_seconds": 0}),
            "/timeout_seconds",
        ),
        (json!({"url": "http://example.com", "events": ["*"], "max_retries": 11}), "/max_retries"),
    ] {
        let refused = server.post(HOOKS, &body).await.expect(422);
        assert_eq!(refused["errors"].as_array().expect("errors").len(), 1, "{refused}");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    // Names that nothing tells of yet are names all the same.
    let named = json!({"events": ["cost.*", "search.completed", "document.created", "query.*"]});
    server.raw(Method::PATCH, &path(&made, ""), named.to_string()).await.expect(200);
    server.delete(&path(&made, "")).await.expect(204);
    for gone in [path(&made, ""), path(&made, "/stats"), format!("{HOOKS}/x")] {
        assert_eq!(server.get(&gone).await.expect(404)["error_type"], "WebhookNotFoundError");
    }
}

/// The body byte for byte, and the headers beside those of the specification.
fn check_as_original(made: &Value, delivery: &Received) {
    let body = delivery.json();
    let text = std::str::from_utf8(&delivery.body).expect("UTF-8");
    let of = |name: &str| body[name].to_string();
    let whole = format!(
        "{{\"id\":{},\"type\":{},\"created_at\":{},\"data\":{},\"tenant_id\":null}}",
        of("id"),
        of("type"),
        of("created_at"),
        text.split_once("\"data\":")
            .and_then(|(_, rest)| rest.strip_suffix(",\"tenant_id\":null}"))
            .expect("data"),
    );
    assert_eq!(text, whole);
    assert!(
        !text.contains(": ") && body["created_at"].as_str().is_some_and(|at| at.ends_with('Z'))
    );
    assert_eq!(delivery.header("x-event-id"), body["id"]);
    assert_eq!(delivery.header("webhook-id"), body["id"]);
    assert_eq!(delivery.header("x-event-type"), body["type"]);
    assert_eq!(delivery.header("x-webhook-id"), made["id"]);
    assert_eq!(delivery.header("user-agent"), "arrwDB-Webhooks/1.0");
    assert_eq!(delivery.header("content-type"), "application/json");
    assert!(delivery.header("x-webhook-signature").starts_with("sha256="));
}

#[tokio::test]
async fn events_arrive_signed_in_order_and_as_the_original_sends_them() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let library = server.vector_library(3).await;
    let made =
        hook(&server, &receiver, json!({"events": ["document.created", "document.deleted"]})).await;
    for n in 0..20 {
        put(&server, &library, n, 1).await;
    }
    server.delete(&format!("/v1/libraries/{library}/documents/{}", id(3))).await.expect(204);
    let came = received(&receiver, 21).await;
    let expected: Vec<String> = (0..20).chain([3]).map(id).collect();
    assert_eq!(documents(&came), expected);
    let ids: HashSet<&str> = came.iter().map(|delivery| delivery.header("webhook-id")).collect();
    assert_eq!(ids.len(), 21);
    for delivery in &came {
        verify(&made, delivery);
        check_as_original(&made, delivery);
        assert_eq!(delivery.json()["data"]["library_id"], *library);
    }
    assert_eq!(came[0].json()["type"], "document.created");
    assert_eq!(came[20].json()["type"], "document.deleted");
    let stats = attempts(&server, &made, 21).await;
    assert_eq!(
        (&stats["successful_deliveries"], &stats["success_rate"]),
        (&json!(21), &json!(100.0))
    );
    // What is known of deliveries outlives a restart, and nothing is sent twice after one in order.
    server.terminate();
    server.ended().await;
    let server = site.start().await;
    let stats = server.get(&path(&made, "/stats")).await.expect(200);
    assert_eq!((&stats["total_deliveries"], &stats["failed_deliveries"]), (&json!(21), &json!(0)));
    let page = server.get(&path(&made, "/deliveries?page_size=5&page=2")).await.expect(200);
    assert_eq!(
        (&page["total"], page["deliveries"].as_array().expect("list").len()),
        (&json!(21), 5)
    );
    let delivery = &page["deliveries"][0];
    assert_eq!(delivery["event_id"], came[15].header("webhook-id"));
    assert_eq!((&delivery["status"], &delivery["attempt_number"]), (&json!("success"), &json!(1)));
    assert_eq!(
        (&delivery["status_code"], &delivery["response_body"]),
        (&json!(200), &json!("as told"))
    );
    put(&server, &library, 50, 1).await;
    let came = received(&receiver, 22).await;
    assert_eq!(documents(&came)[21], id(50));
    verify(&made, &came[21]);
}

#[tokio::test]
async fn a_failed_delivery_is_sent_again_as_it_was_when_the_receiver_says_so() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({"retry_delay_seconds": 1, "max_retries": 3})).await;
    receiver.next(&[Reply::With(503, "Retry-After", "3"), Reply::With(302, "Location", "/other")]);
    put(&server, &library, 1, 1).await;
    put(&server, &library, 2, 1).await;
    let came = received(&receiver, 4).await;
    assert_eq!(documents(&came), [id(1), id(1), id(1), id(2)]);
    assert!(came[1].at - came[0].at >= Duration::from_millis(2900));
    assert_eq!(came[0].body, came[2].body);
    assert_eq!(came[0].header("webhook-id"), came[2].header("webhook-id"));
    assert_ne!(came[0].header("webhook-timestamp"), came[2].header("webhook-timestamp"));
    verify_all(&made, &came);
    attempts(&server, &made, 4).await;
    let page = server.get(&path(&made, "/deliveries")).await.expect(200);
    let of = |at: usize, name: &str| page["deliveries"][at][name].clone();
    let statuses: Vec<Value> = (0..4).map(|at| of(at, "status")).collect();
    assert_eq!(statuses, ["success", "success", "retrying", "retrying"]);
    assert_eq!(of(3, "error_message"), "HTTP 503: as told");
    assert!(of(3, "next_retry_at").is_string());
    assert_eq!(of(2, "status_code"), 302);
    let retrying = server.get(&path(&made, "/deliveries?status=retrying")).await.expect(200);
    assert_eq!(retrying["total"], 2);
    server.get(&path(&made, "/deliveries?status=nonsense")).await.expect(422);
}

async fn webhooks_health(server: &Client) -> Value {
    let health = server.get("/health/detailed").await.expect(200);
    health["components"]["webhooks"].clone()
}

#[tokio::test]
async fn what_cannot_be_delivered_is_kept_and_can_be_sent_again() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({"max_retries": 1})).await;
    receiver.otherwise(Reply::Status(500));
    let first = put(&server, &library, 1, 1).await;
    put(&server, &library, 2, 1).await;
    let last = put(&server, &library, 3, 1).await;
    let letters = until("there are dead letters", async || {
        let page = server.get(&path(&made, "/dead-letters")).await.expect(200);
        (page["total"] == 3).then_some(page)
    })
    .await;
    let of_all = async || webhooks_health(&server).await["dead_letters"].clone();
    assert_eq!(of_all().await, 3, "whoever looks after the server sees that somebody has to");
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("\narrwdb_webhook_dead_letters 3\n"));
    assert_eq!(letters["dead_letters"][0]["payload"]["data"]["document_id"], id(3));
    assert_eq!(letters["dead_letters"][2]["error"], "HTTP 500: as told");
    let again = format!("/dead-letters/{}/redeliver", letters["dead_letters"][2]["id"]);
    let again = path(&made, &again);
    let refused = server.post(&again, &json!({})).await.expect(200);
    let told = [&refused["success"], &refused["delivery"]["attempt_number"]];
    assert_eq!(told, [&json!(false), &json!(2)]);
    receiver.otherwise(Reply::Status(204));
    assert_eq!(server.post(&again, &json!({})).await.expect(200)["success"], true);
    server.post(&again, &json!({})).await.expect(404);
    let all = server.post(&path(&made, "/dead-letters/redeliver"), &json!({})).await.expect(200);
    assert_eq!(all, json!({"delivered": 2, "failed": 0, "remaining": 0}));
    assert_eq!(of_all().await, 0);
    let came = receiver.received();
    assert_eq!(documents(&came), [1, 2, 3, 1, 1, 2, 3].map(id));
    assert_eq!(came[0].header("webhook-id"), came[4].header("webhook-id"));
    // A range, by the same ids; each delivery says which record its event is of.
    assert_eq!(came[0].header("x-event-seq"), first.to_string());
    assert_eq!(came[2].header("x-event-seq"), last.to_string());
    let range = json!({"from_seq": first, "to_seq": last});
    server.post(&path(&made, "/replay"), &range).await.expect(200);
    let came = received(&receiver, 10).await;
    assert_eq!(documents(&came[7..]), [1, 2, 3].map(id));
    assert_eq!(came[7].body, came[0].body);
    verify_all(&made, &came);
    until("the replay is over", async || {
        let shown = server.get(&path(&made, "")).await.expect(200);
        shown["replay"].is_null().then_some(())
    })
    .await;
    let replay = path(&made, "/replay");
    let beyond = json!({"from_seq": last + 1000, "to_seq": last + 2000});
    for refused in [json!({"from_seq": 2, "to_seq": 1}), beyond] {
        server.post(&replay, &refused).await.expect(422);
    }
    // One that is under way can be given up, and begins for an active webhook only.
    server.delete(&replay).await.expect(404);
    receiver.otherwise(Reply::Never);
    server.post(&replay, &range).await.expect(200);
    server.delete(&replay).await.expect(204);
    assert_eq!(server.get(&path(&made, "")).await.expect(200)["replay"], Value::Null);
    let paused = json!({"status": "paused"}).to_string();
    server.raw(Method::PATCH, &path(&made, ""), paused).await.expect(200);
    server.post(&replay, &range).await.expect(409);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more_until_somebody_says_so() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({})).await;
    receiver.next(&[Reply::Status(410)]);
    put(&server, &library, 1, 1).await;
    until("it is disabled", async || {
        let shown = server.get(&path(&made, "")).await.expect(200);
        (shown["status"] == "disabled").then_some(())
    })
    .await;
    let webhooks = async || webhooks_health(&server).await;
    let gauge = "\narrwdb_webhooks_disabled_by_receiver ";
    assert_eq!(webhooks().await["disabled_by_receiver"], 1);
    assert!(server.get("/metrics").await.text().contains(&format!("{gauge}1\n")));
    put(&server, &library, 2, 1).await;
    // A test is sent all the same.
    let test = server.post(&path(&made, "/test"), &json!({})).await.expect(200);
    assert_eq!(test["success"], true);
    let came = receiver.received();
    assert_eq!(came.len(), 2);
    assert_eq!(came[1].json()["type"], "job.completed");
    assert_eq!(came[1].json()["data"]["test"], true);
    verify(&made, &came[1]);
    let active = json!({"status": "active"}).to_string();
    server.raw(Method::PATCH, &path(&made, ""), active).await.expect(200);
    let came = received(&receiver, 4).await;
    assert_eq!(documents(&came[2..]), [1, 2].map(id));
    assert_eq!(webhooks().await["disabled_by_receiver"], 0);
    // One that somebody turns off was not turned off by its receiver.
    let disabled = json!({"status": "disabled"}).to_string();
    server.raw(Method::PATCH, &path(&made, ""), disabled).await.expect(200);
    assert_eq!(webhooks().await["disabled_by_receiver"], 0);
    assert!(server.get("/metrics").await.text().contains(&format!("{gauge}0\n")));
}

#[tokio::test]
async fn every_webhook_is_told_of_an_event_by_the_place_that_it_has_in_the_feed() {
    let site = site().await;
    let server = site.start().await;
    let receivers = [Receiver::start().await, Receiver::start().await];
    let library = server.vector_library(3).await;
    for receiver in &receivers {
        hook(&server, receiver, json!({})).await;
    }
    let mut seqs = Vec::new();
    for n in 0..3 {
        seqs.push(put(&server, &library, n, 1).await);
    }
    let first = received(&receivers[0], 3).await;
    let other = received(&receivers[1], 3).await;
    let events = server.events("document.added").await;
    for (n, (one, other)) in first.iter().zip(&other).enumerate() {
        for delivery in [one, other] {
            assert_eq!(delivery.header("x-event-seq"), seqs[n].to_string());
            assert_eq!(delivery.header("x-event-position"), events[n]["id"]);
        }
        assert_ne!(one.header("webhook-id"), other.header("webhook-id"));
    }
}

#[tokio::test]
async fn both_secrets_sign_while_one_takes_the_place_of_the_other() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let made = hook(&server, &receiver, json!({})).await;
    let rotate = path(&made, "/rotate-secret");
    let rotated = server.post(&rotate, &json!({"grace_seconds": 3600})).await.expect(200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert!(rotated["previous_secret_valid_until"].is_string());
    server.post(&path(&made, "/test"), &json!({})).await.expect(200);
    let came = receiver.received();
    verify(&made, &came[0]);
    verify(&rotated, &came[0]);
    assert_eq!(came[0].header("webhook-signature").split(' ').count(), 2);
    // Without a grace, the ones before sign no more.
    let alone = server.post(&rotate, &json!({"grace_seconds": 0})).await.expect(200);
    server.post(&path(&made, "/test"), &json!({})).await.expect(200);
    let came = receiver.received();
    verify(&alone, &came[1]);
    assert_eq!(came[1].header("webhook-signature").split(' ').count(), 1);
    // No secret lies on disk or in the log in plain.
    server.terminate();
    server.ended().await;
    for shown in [&made, &rotated, &alone] {
        let secret =
            shown["secret"].as_str().expect("secret").strip_prefix("whsec_").expect("prefix");
        assert!(!server.log().contains(secret));
        let mut grep = std::process::Command::new("grep");
        let found = grep.args(["-rqaF", secret]).arg(&site.data_dir);
        assert_eq!(found.status().expect("grep").code(), Some(1), "a secret is on disk");
    }
}

#[tokio::test]
async fn receivers_that_hang_delay_nobody() {
    let site = site().await;
    let server = site.start().await;
    let (quick, hanging) = (Receiver::start().await, Receiver::start().await);
    hanging.otherwise(Reply::Never);
    let library = server.vector_library(3).await;
    for _hook in 0..10 {
        hook(&server, &hanging, json!({"timeout_seconds": 120})).await;
    }
    let made = hook(&server, &quick, json!({})).await;
    for n in 0..50 {
        put(&server, &library, n, 1).await;
    }
    let came = received(&quick, 50).await;
    assert_eq!(documents(&came), (0..50).map(id).collect::<Vec<_>>());
    attempts(&server, &made, 50).await;
    assert_eq!(hanging.received().len(), 10, "each of them is sent one at a time");
}

#[tokio::test]
async fn requests_that_wait_for_receivers_that_hang_hold_up_nobody_else() {
    /// As many are answered at the same time.
    const CALLS: usize = 16;
    let mut site = site().await;
    // As many slots as there are for what is neither.
    site.set("MAX_CONCURRENT_REQUESTS", "16");
    let server = site.start().await;
    let hanging = Receiver::start().await;
    hanging.otherwise(Reply::Never);
    let library = server.vector_library(3).await;
    put(&server, &library, 1, 1).await;
    let mut calls = Vec::new();
    for _call in 0..4 * CALLS {
        let made = hook(&server, &hanging, json!({"timeout_seconds": 120})).await;
        let (client, path) = (server.client.clone(), path(&made, "/test"));
        calls.push(tokio::spawn(async move { client.post(&path, &json!({})).await }));
    }
    received(&hanging, CALLS).await;
    let export = format!("/v1/libraries/{library}/documents/stream");
    assert_eq!(server.get(&export).await.status, 200);
    until("those for whom there is no room are told so", async || {
        let told = calls.iter().filter(|call| call.is_finished()).count();
        (told >= 2 * CALLS).then_some(())
    })
    .await;
    assert_eq!(hanging.received().len(), CALLS);
    for call in calls {
        if call.is_finished() {
            assert_eq!(call.await.expect("answered").status, 503);
        } else {
            call.abort();
        }
    }
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let mut site = Site::new().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let port = receiver
        .url()
        .split(':')
        .nth(2)
        .and_then(|rest| rest.split('/').next())
        .expect("port")
        .to_owned();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0x7f000001",
        "10.0.0.1",
        "169.254.169.254",
    ] {
        let body = json!({"url": format!("http://{host}:{port}/"), "events": ["*"]});
        let refused = server.post(HOOKS, &body).await.expect(422);
        let detail = refused["errors"][0]["detail"].as_str().expect("detail");
        assert!(detail.contains("WEBHOOK_ALLOW_PRIVATE"), "{detail}");
    }
    drop(server);
    // What was allowed once is refused when it is no more, and says so.
    site.set("WEBHOOK_ALLOW_PRIVATE", "true");
    let server = site.start().await;
    let made = hook(&server, &receiver, json!({})).await;
    server.post(&path(&made, "/test"), &json!({})).await.expect(200);
    drop(server);
    site.set("WEBHOOK_ALLOW_PRIVATE", "false");
    let server = site.start().await;
    server.post(&path(&made, "/test"), &json!({})).await.expect(409);
    let shown = server.get(&path(&made, "")).await.expect(200);
    let problem = shown["problem"].as_str().expect("a problem");
    assert!(problem.contains("WEBHOOK_ALLOW_PRIVATE"), "{problem}");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn every_event_arrives_though_the_server_is_killed_again_and_again() {
    let site = site().await;
    let receiver = Receiver::start().await;
    let mut server = site.start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({})).await;
    for round in 0..4 {
        for n in round * 25..round * 25 + 25 {
            put(&server, &library, n, 1).await;
        }
        server.kill();
        drop(server);
        server = site.start().await;
    }
    let came = until("all of them came", async || {
        let came = receiver.received();
        let seen: HashSet<String> = documents(&came).into_iter().collect();
        (seen.len() == 100).then_some(came)
    })
    .await;
    // Some may have come twice, by the same id; the first time each came, they were in order.
    let mut seen = HashSet::new();
    let first: Vec<&Received> =
        came.iter().filter(|delivery| seen.insert(delivery.header("webhook-id"))).collect();
    assert_eq!(first.len(), 100, "an event has one id");
    let order: Vec<String> = documents(&first.into_iter().cloned().collect::<Vec<_>>());
    assert_eq!(order, (0..100).map(id).collect::<Vec<_>>());
    verify_all(&made, &came);
}

#[tokio::test]
async fn without_its_key_a_webhook_waits_until_its_secret_is_rotated() {
    let site = site().await;
    let receiver = Receiver::start().await;
    let server = site.start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({})).await;
    put(&server, &library, 1, 1).await;
    received(&receiver, 1).await;
    attempts(&server, &made, 1).await;
    server.terminate();
    server.ended().await;
    std::fs::remove_file(site.data_dir.join("keys/webhooks.key")).expect("the key is there");
    let server = site.start().await;
    put(&server, &library, 2, 1).await;
    let shown = server.get(&path(&made, "")).await.expect(200);
    let problem = shown["problem"].as_str().expect("a problem");
    assert!(problem.contains("rotate the secret"), "{problem}");
    server.post(&path(&made, "/test"), &json!({})).await.expect(409);
    let rotated = server.post(&path(&made, "/rotate-secret"), &json!({})).await.expect(200);
    assert_eq!(rotated["problem"], Value::Null);
    let came = received(&receiver, 2).await;
    assert_eq!(documents(&came), [1, 2].map(id));
    verify(&rotated, &came[1]);
    assert_eq!(came[1].header("webhook-signature").split(' ').count(), 1);
}

#[tokio::test]
async fn libraries_do_not_wait_for_each_other_and_each_is_in_order() {
    let site = site().await;
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let (first, second) = (server.vector_library(3).await, server.vector_library(3).await);
    // The first delivery fails and is tried again after a long time; its library waits for it.
    receiver.next(&[Reply::Status(500)]);
    let made = hook(&server, &receiver, json!({"retry_delay_seconds": 4})).await;
    put(&server, &first, 1, 1).await;
    received(&receiver, 1).await;
    put(&server, &first, 2, 1).await;
    put(&server, &second, 3, 1).await;
    put(&server, &second, 4, 1).await;
    let came = received(&receiver, 5).await;
    assert_eq!(documents(&came), [1, 3, 4, 1, 2].map(id));
    verify_all(&made, &came);
}

#[tokio::test]
async fn events_that_are_no_longer_kept_are_one_dead_letter() {
    let mut site = site().await;
    site.set("EVENT_RETENTION_SECONDS", "0");
    let server = site.start().await;
    let receiver = Receiver::start().await;
    let library = server.vector_library(3).await;
    let made = hook(&server, &receiver, json!({"events": ["document.added"]})).await;
    let status = |status: &str| json!({"status": status}).to_string();
    server.raw(Method::PATCH, &path(&made, ""), status("paused")).await.expect(200);
    put(&server, &library, 1, 1).await;
    server.delete(&format!("/v1/libraries/{library}/documents/{}", id(1))).await.expect(204);
    // A purge leaves nothing of the log that was before it.
    server.post("/v1/admin/purge", &json!({})).await.expect(200);
    let last = put(&server, &library, 2, 1).await;
    server.raw(Method::PATCH, &path(&made, ""), status("active")).await.expect(200);
    let came = received(&receiver, 1).await;
    assert_eq!(documents(&came), [id(2)]);
    let letters = server.get(&path(&made, "/dead-letters")).await.expect(200);
    assert_eq!(letters["total"], 1);
    let letter = &letters["dead_letters"][0];
    let before = letter["missing"]["before_seq"].as_u64().expect("before_seq");
    assert!(before > 1 && before <= last, "{letter}");
    assert_eq!((&letter["payload"], &letter["event_id"]), (&Value::Null, &Value::Null));
    let again = path(&made, &format!("/dead-letters/{}/redeliver", letter["id"]));
    server.post(&again, &json!({})).await.expect(410);
    let gone = server.post(&path(&made, "/replay"), &json!({"from_seq": 1, "to_seq": last})).await;
    assert_eq!(gone.expect(410)["oldest_seq"], before);
    server.delete(&path(&made, &format!("/dead-letters/{}", letter["id"]))).await.expect(204);
    assert_eq!(server.get(&path(&made, "/stats")).await.expect(200)["dead_letters"], 0);
}
