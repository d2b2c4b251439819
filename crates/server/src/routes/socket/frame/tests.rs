use proptest::prelude::*;

use super::*;
use crate::config::{Config, Sources};

fn limits() -> RequestLimits {
    Config::load(&Sources::default()).unwrap().limits
}

fn refused(message: &str) -> Value {
    let text = message_problem(message.as_bytes(), &limits()).expect("a refusal");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_message_that_is_no_request_says_why() {
    for (message, request_id, error) in [
        ("", Value::Null, "the text ends too early (at byte 0)"),
        ("{\"request_id\":\"a\",", "a".into(), "the text ends too early (at byte 18)"),
        ("[]", Value::Null, "Invalid message format"),
        ("null", Value::Null, "Invalid message format"),
        ("{}", Value::Null, "Invalid message format"),
        ("{\"request_id\":\"a\"}", "a".into(), "Invalid message format"),
        (
            "{\"request_id\":\"a\",\"action\":\"get\",\"data\":7}",
            "a".into(),
            "Invalid message format",
        ),
        ("{\"request_id\":\"\",\"action\":\"ping\"}", Value::Null, "Invalid message format"),
        ("{\"request_id\":7,\"action\":\"ping\"}", Value::Null, "Invalid message format"),
    ] {
        let frame = refused(message);
        assert_eq!(frame["type"], "error", "{message}");
        assert_eq!(frame["success"], false, "{message}");
        assert_eq!(frame["request_id"], request_id, "{message}");
        assert_eq!(frame["error"], error, "{message}");
        assert_eq!(frame["details"].is_array(), error == "Invalid message format", "{message}");
    }
}

#[test]
fn a_request_that_asks_for_nothing_that_there_is_says_so() {
    for (action, data, error) in [
        ("dance", "{}", "Unknown action: dance"),
        ("search", "{}", "query_text is required"),
        ("search", "{\"query_text\":\"  \"}", "query_text is required"),
        (
            "search",
            "{\"query_text\":\"a\",\"embedding\":[1]}",
            "give one of query_text and embedding",
        ),
        ("search", "{\"query_text\":\"a\",\"k\":0}", "/k: must be from 1 to 100"),
        (
            "search",
            "{\"query_text\":\"a\",\"metadata_filter\":{\"a\":{}}}",
            "/metadata_filter/a: must have an operator: $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, \
             $contains, $not_contains, $prefix, $text or $not",
        ),
        ("search", "{\"query_text\":7}", "/query_text: must be a string"),
        ("watch", "{}", "query_text is required"),
        ("add", "{}", "text is required"),
        ("add", "{\"text\":\" \"}", "text is required"),
        ("delete", "{}", "document_id is required"),
        ("get", "{}", "document_id is required"),
        ("get", "{\"document_id\":\"x\"}", "Invalid document_id format"),
        ("update", "{\"document_id\":\"\"}", "Invalid document_id format"),
        ("unwatch", "{}", "watch_id is required"),
        ("subscribe", "{\"events\":[\"nonsense\"]}", "Invalid event type: nonsense"),
        (
            "subscribe",
            "{\"after\":true}",
            "/after: must be a sequence number or the event_id of an event, such as 7 or \"7.0\"",
        ),
    ] {
        let message = format!("{{\"request_id\":\"r\",\"action\":\"{action}\",\"data\":{data}}}");
        let frame = refused(&message);
        assert_eq!(frame["type"], "response", "{message}");
        assert_eq!(frame["request_id"], "r", "{message}");
        assert_eq!(frame["success"], false, "{message}");
        assert_eq!(frame["data"], Value::Null, "{message}");
        assert_eq!(frame["error"], error, "{message}");
    }
}

#[test]
fn what_is_right_is_read_whole() {
    let read = |message: &str| {
        let envelope = Envelope::read(message.as_bytes()).unwrap();
        envelope.action(&limits()).unwrap()
    };
    let add = read(
        "{\"type\":\"request\",\"data\":{\"text\":\"t\",\"session_id\":7,\"metadata\":{\"author\":\"A\",\
         \"tags\":[\"x\"],\"source_url\":\"u\",\"year\":1}},\"action\":\"add\",\"request_id\":\"r\"}",
    );
    let Action::Add(document) = add else { panic!("{add:?}") };
    assert_eq!((document.title.as_str(), document.author.as_deref()), ("Untitled", Some("A")));
    assert_eq!((document.tags.len(), document.source_url.as_deref()), (1, Some("u")));
    assert_eq!(document.custom.len(), 1, "{:?}", document.custom);
    let Action::Ping = read("{\"request_id\":\"r\",\"action\":\"ping\"}") else {
        panic!("no ping")
    };
    let subscribe = read(
        "{\"request_id\":\"r\",\"action\":\"subscribe\",\"data\":{\"events\":[\"document.*\"],\"after\":7}}",
    );
    let Action::Subscribe(subscribe) = subscribe else { panic!("{subscribe:?}") };
    assert_eq!(
        type_names(subscribe.types),
        ["document.added", "document.updated", "document.deleted"]
    );
    assert_eq!(subscribe.after, Some(Position::after(Seq::new(7))));
    let all = read("{\"request_id\":\"r\",\"action\":\"unsubscribe\",\"data\":null}");
    assert!(matches!(all, Action::Unsubscribe(None)), "{all:?}");
    let update = read(
        "{\"request_id\":\"r\",\"action\":\"update\",\"data\":{\"document_id\":\
         \"0191f4a2-7c3e-7abc-8def-0123456789ab\",\"metadata\":{\"tags\":[]}}}",
    );
    let Action::Update(_, patch) = update else { panic!("{update:?}") };
    assert!(patch.content.is_none() && patch.title.is_none());
}

/// Pieces of requests, so that more than the first byte is read of most messages.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"request_id\"",
        "\"r\"",
        "\"action\"",
        "\"data\"",
        "null",
        "\"search\"",
        "\"watch\"",
        "\"add\"",
        "\"update\"",
        "\"get\"",
        "\"subscribe\"",
        "\"events\"",
        "\"query_text\"",
        "\"embedding\"",
        "\"document_id\"",
        "\"text\"",
        "\"metadata\"",
        "\"tags\"",
        "\"k\"",
        "-1e999",
        "1",
        "\"\\ud800\"",
        "\"\u{2028}\"",
        " ",
        "true",
        "\"after\"",
        "\"7.0\"",
        "{\"request_id\":\"r\",\"action\":\"search\",\"data\":{\"query_text\":\"q\",",
        "{\"request_id\":\"r\",\"action\":\"add\",\"data\":{\"text\":\"q\",",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn v4_any_message_is_a_request_or_is_refused_in_one_frame(message in messages()) {
        let limits = limits();
        if let Some(text) = message_problem(&message, &limits) {
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(&frame["success"], &Value::Bool(false));
            prop_assert!(frame["error"].as_str().is_some_and(|error| !error.is_empty()));
            let known = ["error", "response"].iter().any(|name| frame["type"] == *name);
            prop_assert!(known, "{}", text);
        }
    }
}
