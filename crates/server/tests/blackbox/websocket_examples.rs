//! What the documentation of WebSockets shows is what a server does.

use std::collections::HashMap;

use serde_json::Value;

use crate::harness::Site;
use crate::harness::ws::Socket;

const DOCUMENT: &str = include_str!("../../../../docs/websocket.md");

/// The fenced blocks: whether they are sent, and their text.
fn examples() -> Vec<(bool, String)> {
    let mut examples = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```json ") else { continue };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        examples.push((kind == "send", text.join("\n")));
    }
    examples
}

/// Whether a value is as the example has it; `<name>` is anything, and the same document wherever
/// it names one.
fn fits(example: &Value, real: &Value, known: &mut HashMap<String, Value>) -> bool {
    match (example, real) {
        (Value::String(name), _) if name.starts_with('<') => {
            let lasting = ["<document>", "<nearer>", "<library>"].contains(&name.as_str());
            !lasting || known.entry(name.clone()).or_insert_with(|| real.clone()) == real
        }
        (Value::Object(example), Value::Object(real)) => {
            example.len() == real.len()
                && example
                    .iter()
                    .all(|(key, value)| real.get(key).is_some_and(|real| fits(value, real, known)))
        }
        (Value::Array(example), Value::Array(real)) => {
            example.len() == real.len()
                && example.iter().zip(real).all(|(example, real)| fits(example, real, known))
        }
        _ => example == real,
    }
}

#[tokio::test]
async fn every_example_is_what_a_server_does() {
    let site = Site::new().await;
    let server = site.start().await;
    let library = server.library().await;
    let mut socket = Socket::open(&server, &library).await;
    let mut known = HashMap::new();
    let examples = examples();
    assert!(examples.len() > 25, "{} examples", examples.len());
    for (sent, text) in examples {
        if sent {
            let mut text = text;
            for (name, value) in &known {
                let value: &Value = value;
                text = text.replace(name, value.as_str().expect("a text"));
            }
            socket.text(&text).await;
            continue;
        }
        let example: Value = serde_json::from_str(&text).expect("JSON");
        let real = socket.of_type(example["type"].as_str().expect("a type")).await;
        assert!(fits(&example, &real, &mut known), "the document has\n{text}\nand it is\n{real}");
    }
    assert_eq!(socket.kept(), 0);
    assert_eq!(known["<library>"], library);
}
