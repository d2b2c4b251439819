//! Coalescing, order, admission and deadlines.

use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::deterministic::{DeterministicProvider, vector_of};
use arrwdb_embed::{CallError, EmbedConfig, EmbedError, Embedder, InputType, ModelSpec, Retry};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::support::{Call, LONG, Told, custom, texts};

type Answer = JoinHandle<Result<Vec<f32>, EmbedError>>;

async fn told(texts_per_call: usize) -> (Embedder, UnboundedReceiver<Call>) {
    let (provider, calls) = Told::new(texts_per_call);
    (custom(EmbedConfig::default(), provider).await, calls)
}

/// Starts a request and lets it get as far as it can.
async fn ask(embedder: &Embedder, input: InputType, texts: &[&str]) -> Answer {
    let (embedder, model) = (embedder.clone(), embedder.default_model());
    let texts = texts.iter().map(|&text| text.to_owned()).collect();
    let answer = tokio::spawn(async move { embedder.embed(&model, input, texts, LONG).await });
    settle().await;
    answer
}

/// Runs every other task of this single-threaded runtime until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn call(calls: &mut UnboundedReceiver<Call>) -> Call {
    calls.recv().await.expect("a call")
}

#[tokio::test(start_paused = true)]
async fn an_idle_embedder_does_not_wait_for_company() {
    let (embedder, mut calls) = told(8).await;
    let start = tokio::time::Instant::now();
    let answer = ask(&embedder, InputType::Query, &["one"]).await;
    call(&mut calls).await.finish();
    assert_eq!(answer.await.expect("task").expect("a vector"), vector_of("one", 384));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_together_are_called_together() {
    let (embedder, mut calls) = told(8).await;
    let first = ask(&embedder, InputType::Document, &["first"]).await;
    let running = call(&mut calls).await;
    let second = ask(&embedder, InputType::Document, &["a", "b"]).await;
    let third = ask(&embedder, InputType::Document, &["c"]).await;
    assert_eq!(embedder.stats().queue_texts, 4);
    running.finish();
    let together = call(&mut calls).await;
    assert_eq!(together.texts, ["a", "b", "c"]);
    together.finish();
    assert_eq!(first.await.expect("task").expect("vectors"), vector_of("first", 384));
    let expected = [vector_of("a", 384), vector_of("b", 384)].concat();
    assert_eq!(second.await.expect("task").expect("vectors"), expected);
    assert_eq!(third.await.expect("task").expect("vectors"), vector_of("c", 384));
    assert_eq!(embedder.stats().queue_texts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_waits_behind_no_more_than_the_running_piece() {
    let (embedder, mut calls) = told(2).await;
    let documents =
        ask(&embedder, InputType::Document, &["d1", "d2", "d3", "d4", "d5", "d6"]).await;
    let piece = call(&mut calls).await;
    assert_eq!(piece.texts, ["d1", "d2"]);
    let query = ask(&embedder, InputType::Query, &["q"]).await;
    piece.finish();
    let next = call(&mut calls).await;
    assert_eq!((next.input, next.texts.as_slice()), (InputType::Query, &["q".to_owned()][..]));
    next.finish();
    assert_eq!(query.await.expect("task").expect("a vector"), vector_of("q", 384));
    for expected in [["d3", "d4"], ["d5", "d6"]] {
        let piece = call(&mut calls).await;
        assert_eq!(piece.texts, expected);
        piece.finish();
    }
    let vectors = documents.await.expect("task").expect("vectors");
    assert_eq!(vectors.len(), 6 * 384);
    assert_eq!(vectors[5 * 384..], vector_of("d6", 384));
}

#[tokio::test(start_paused = true)]
async fn documents_are_not_starved_by_queries() {
    let (embedder, mut calls) = told(1).await;
    let document = ask(&embedder, InputType::Document, &["d1", "d2"]).await;
    let piece = call(&mut calls).await;
    let mut queries = Vec::new();
    for number in 0..12 {
        queries.push(ask(&embedder, InputType::Query, &[&format!("q{number}")]).await);
    }
    piece.finish();
    let mut order = Vec::new();
    for _ in 0..13 {
        let next = call(&mut calls).await;
        order.push(next.input);
        next.finish();
    }
    let at = order.iter().position(|input| *input == InputType::Document);
    assert_eq!(at, Some(8), "{order:?}");
    assert!(document.await.expect("task").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_large_request_does_not_hold_up_a_small_one() {
    let (embedder, mut calls) = told(2).await;
    let large = ask(&embedder, InputType::Document, &["a", "b", "c", "d", "e", "f"]).await;
    let piece = call(&mut calls).await;
    let small = ask(&embedder, InputType::Document, &["x"]).await;
    piece.finish();
    // The large one was queued again before the small one came; then they take turns.
    for expected in [&["c", "d"][..], &["x", "e"], &["f"]] {
        let piece = call(&mut calls).await;
        assert_eq!(piece.texts, expected);
        piece.finish();
    }
    assert!(small.await.expect("task").is_ok());
    assert!(large.await.expect("task").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_piece_is_bounded_in_tokens() {
    let (embedder, mut calls) = told(64).await;
    // Some 400 tokens each by estimate, of 1,000 in a call.
    let long = "word ".repeat(320);
    let [a, b, c] = ["a", "b", "c"].map(|letter| format!("{letter} {long}"));
    let answer = ask(&embedder, InputType::Document, &[&a, &b, &c]).await;
    for expected in [2, 1] {
        let piece = call(&mut calls).await;
        assert_eq!(piece.texts.len(), expected);
        piece.finish();
    }
    assert!(answer.await.expect("task").is_ok());
}

#[tokio::test(start_paused = true)]
async fn e2_a_full_queue_is_busy() {
    let mut config = EmbedConfig::default();
    config.limits.queue_texts_max = 1_024;
    let (provider, mut calls) = Told::new(64);
    let embedder = custom(config, provider).await;
    let many: Vec<String> = (0..1_000).map(|number| format!("t{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let waiting = ask(&embedder, InputType::Document, &many).await;
    let next = ask(&embedder, InputType::Document, &many[..25]).await;
    let busy = EmbedError::Busy { retry_after: Duration::from_secs(1) };
    assert_eq!(next.await.expect("task"), Err(busy));
    // A caller that leaves gives its room back.
    waiting.abort();
    assert!(waiting.await.is_err());
    let next = ask(&embedder, InputType::Document, &["fits"]).await;
    call(&mut calls).await.finish();
    let last = call(&mut calls).await;
    assert_eq!(last.texts, ["fits"], "what was withdrawn is not called");
    last.finish();
    assert!(next.await.expect("task").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_queue_goes_through_in_parts() {
    let mut config = EmbedConfig::default();
    config.limits.queue_texts_max = 1_024;
    let embedder = custom(config, Arc::new(DeterministicProvider)).await;
    let many: Vec<String> = (0..3_000).map(|number| format!("text {number}")).collect();
    let expected: Vec<f32> = many.iter().flat_map(|text| vector_of(text, 384)).collect();
    let model = embedder.default_model();
    let vectors = embedder.embed(&model, InputType::Document, many, LONG).await.expect("vectors");
    assert!(vectors == expected);
}

#[tokio::test(start_paused = true)]
async fn e2_the_deadline_holds_and_what_nobody_waits_for_is_not_called() {
    let (embedder, mut calls) = told(8).await;
    let blocking = ask(&embedder, InputType::Document, &["slow"]).await;
    let running = call(&mut calls).await;
    let deadline = Duration::from_millis(250);
    let start = tokio::time::Instant::now();
    let model = embedder.default_model();
    let late = embedder.embed(&model, InputType::Query, texts(["late"]), deadline).await;
    assert_eq!(late, Err(EmbedError::Deadline { deadline }));
    assert_eq!(start.elapsed(), deadline);
    running.finish();
    assert!(blocking.await.expect("task").is_ok());
    settle().await;
    assert!(calls.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn equal_texts_are_embedded_once() {
    let (embedder, mut calls) = told(8).await;
    let answer = ask(&embedder, InputType::Document, &["a", "b", "a", "a"]).await;
    let once = call(&mut calls).await;
    assert_eq!(once.texts, ["a", "b"]);
    once.finish();
    let expected = ["a", "b", "a", "a"].map(|text| vector_of(text, 384)).concat();
    assert_eq!(answer.await.expect("task").expect("vectors"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_fails_its_call_only() {
    let (embedder, mut calls) = told(8).await;
    let answer = ask(&embedder, InputType::Document, &["a"]).await;
    // Dropping the call unanswered makes this provider panic.
    drop(call(&mut calls).await);
    let failed = answer.await.expect("task").expect_err("no answer");
    assert!(matches!(failed, EmbedError::Provider { status: None, .. }), "{failed:?}");
    let answer = ask(&embedder, InputType::Document, &["b"]).await;
    call(&mut calls).await.finish();
    assert!(answer.await.expect("task").is_ok());
    assert_eq!(embedder.stats().queue_texts, 0);
}

#[tokio::test(start_paused = true)]
async fn e2_retries_wait_on_the_given_clock() {
    let (embedder, mut calls) = told(8).await;
    let start = tokio::time::Instant::now();
    let answer = ask(&embedder, InputType::Document, &["a"]).await;
    let error = EmbedError::RateLimited { retry_after: Duration::from_secs(9) };
    let retry = Retry::After(Duration::from_secs(9));
    call(&mut calls).await.reply_with(Err(CallError { error, retry }));
    call(&mut calls).await.finish();
    assert!(answer.await.expect("task").is_ok());
    assert_eq!(start.elapsed(), Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn closing_answers_everyone() {
    let (embedder, mut calls) = told(8).await;
    let running = ask(&embedder, InputType::Document, &["a"]).await;
    let queued = ask(&embedder, InputType::Document, &["b"]).await;
    let abandoned = call(&mut calls).await;
    embedder.close().await;
    assert_eq!(running.await.expect("task"), Err(EmbedError::Closed));
    assert_eq!(queued.await.expect("task"), Err(EmbedError::Closed));
    drop(abandoned);
    let after = ask(&embedder, InputType::Document, &["c"]).await;
    assert_eq!(after.await.expect("task"), Err(EmbedError::Closed));
    embedder.close().await;
}

#[tokio::test(start_paused = true)]
async fn models_do_not_share_a_call() {
    let (embedder, mut calls) = told(8).await;
    let _running = ask(&embedder, InputType::Document, &["first"]).await;
    let first = call(&mut calls).await;
    let whole = ask(&embedder, InputType::Document, &["a"]).await;
    let short = ModelSpec { dimension: 64, ..embedder.default_model() };
    let other = embedder.clone();
    let cut =
        tokio::spawn(
            async move { other.embed(&short, InputType::Document, texts(["a"]), LONG).await },
        );
    settle().await;
    first.finish();
    for _ in 0..2 {
        call(&mut calls).await.finish();
    }
    assert_eq!(whole.await.expect("task").expect("a vector").len(), 384);
    assert_eq!(cut.await.expect("task").expect("a vector").len(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_on_one_text_of_several_calls_fails_that_caller() {
    let (embedder, mut calls) = told(4).await;
    let first = ask(&embedder, InputType::Document, &["first"]).await;
    let running = call(&mut calls).await;
    // The second request shares a call with the beginning of the third.
    let good = ask(&embedder, InputType::Document, &["good"]).await;
    let bad = ask(&embedder, InputType::Document, &["b1", "b2", "b3", "b4", "b5"]).await;
    running.finish();
    assert!(first.await.expect("task").is_ok());
    let together = call(&mut calls).await;
    assert_eq!(together.texts, ["good", "b1", "b2", "b3"]);
    let error = EmbedError::Provider { status: Some(400), detail: "one of them".to_owned() };
    together.reply_with(Err(CallError { error, retry: Retry::Apart }));
    let start = tokio::time::Instant::now();
    let mut order = Vec::new();
    for _ in 0..2 {
        let alone = call(&mut calls).await;
        order.push(alone.texts.clone());
        match alone.texts.as_slice() {
            [text] if text == "good" => alone.finish(),
            // Dropping the call unanswered makes this provider panic.
            _ => drop(alone),
        }
    }
    assert_eq!(order, [vec!["good"], vec!["b1", "b2", "b3"]]);
    assert!(good.await.expect("task").is_ok());
    let failed = bad.await.expect("task").expect_err("no answer");
    assert!(matches!(failed, EmbedError::Provider { status: None, .. }), "{failed:?}");
    assert_eq!(start.elapsed(), Duration::ZERO, "and at once");
}

#[tokio::test(start_paused = true)]
async fn e2_a_caller_that_left_holds_no_place_until_its_retry() {
    let (embedder, mut calls) = told(8).await;
    let impatient = ask(&embedder, InputType::Document, &["a"]).await;
    let error = EmbedError::RateLimited { retry_after: Duration::from_mins(1) };
    let retry = Retry::After(Duration::from_mins(1));
    call(&mut calls).await.reply_with(Err(CallError { error, retry }));
    settle().await;
    let next = ask(&embedder, InputType::Document, &["b"]).await;
    let start = tokio::time::Instant::now();
    impatient.abort();
    assert!(impatient.await.is_err());
    let called = call(&mut calls).await;
    assert_eq!(called.texts, ["b"]);
    called.finish();
    assert!(next.await.expect("task").is_ok());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_all_time_is_none() {
    let embedder = custom(EmbedConfig::default(), Arc::new(DeterministicProvider)).await;
    let model = embedder.default_model();
    let vector = embedder.embed(&model, InputType::Query, texts(["a"]), Duration::MAX).await;
    assert_eq!(vector.expect("a vector"), vector_of("a", 384));
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_hashed_and_answered_in_order() {
    let embedder = custom(EmbedConfig::default(), Arc::new(DeterministicProvider)).await;
    let model = embedder.default_model();
    let many: Vec<String> =
        (0..40).map(|number| format!("{number} {}", "x ".repeat(5_000))).collect();
    let expected: Vec<f32> = many.iter().flat_map(|text| vector_of(text, 384)).collect();
    let vectors = embedder.embed(&model, InputType::Document, many, LONG).await.expect("vectors");
    assert!(vectors == expected);
}
