//! Stand-ins: a clock that a test moves, a server that answers by script, a provider that waits
//! to be told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::deterministic::vector_of;
use arrwdb_embed::http::{HttpOptions, ProxyUse, http_client};
use arrwdb_embed::{
    BoxFuture, CallError, CohereConfig, CohereVersion, EmbedConfig, EmbedParts, Embedder,
    InputType, LocalSource, ModelSpec, OpenAiConfig, Provider, ProviderAnswer, ProviderLimits,
    Secret, Timer, TokioTimer,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) const KEY: &str = "co-secret-key-123";
pub(crate) const LONG: Duration = Duration::from_secs(100);

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub(crate) struct ManualTimer {
    state: Mutex<ManualState>,
    slept: Notify,
}

#[derive(Debug, Default)]
struct ManualState {
    now: Duration,
    sleeps: Vec<(Duration, Duration, oneshot::Sender<()>)>,
}

impl ManualTimer {
    /// Waits until something sleeps for exactly `duration`, and lets that much time pass.
    pub(crate) async fn pass(&self, duration: Duration) {
        self.pass_if(|slept| slept == duration).await;
    }

    /// Waits until something sleeps for a time that fits, lets it pass, and returns it.
    pub(crate) async fn pass_if(&self, fits: impl Fn(Duration) -> bool) -> Duration {
        loop {
            let slept = self.slept.notified();
            let found = {
                let state = self.state.lock();
                let mut open = state.sleeps.iter().filter(|(_, _, done)| !done.is_closed());
                open.find(|(_, length, _)| fits(*length)).map(|&(until, length, _)| (until, length))
            };
            if let Some((until, length)) = found {
                let mut state = self.state.lock();
                state.now = state.now.max(until);
                let now = state.now;
                let (over, rest) =
                    std::mem::take(&mut state.sleeps).into_iter().partition(|sleep| sleep.0 <= now);
                state.sleeps = rest;
                drop(state);
                let over: Vec<(Duration, Duration, oneshot::Sender<()>)> = over;
                for (_, _, done) in over {
                    done.send(()).unwrap_or_default();
                }
                return length;
            }
            slept.await;
        }
    }
}

/// So that a test keeps its clock while the embedder has it too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(pub(crate) Arc<ManualTimer>);

impl Timer for Clock {
    fn now(&self) -> Duration {
        self.0.state.lock().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (done, over) = oneshot::channel();
        {
            let mut state = self.0.state.lock();
            let until = state.now + duration;
            state.sleeps.push((until, duration, done));
        }
        self.0.slept.notify_one();
        Box::pin(async move {
            drop(over.await);
        })
    }
}

/// What came to a stand-in server.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// What a stand-in server answers to one request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// As the real one would.
    Real,
    /// Status, headers, body.
    Raw(u16, Vec<(&'static str, &'static str)>, String),
    /// Never.
    Silence,
}

/// A stand-in server that speaks Cohere's and OpenAI's formats.
pub(crate) struct Stand {
    pub(crate) url: String,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
}

struct Script {
    replies: Mutex<VecDeque<Reply>>,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Stand {
    /// Answers the first requests by `replies`, the rest as the real one would.
    pub(crate) async fn start(replies: Vec<Reply>) -> Stand {
        let (sender, seen) = mpsc::unbounded_channel();
        let script = Arc::new(Script { replies: Mutex::new(replies.into()), seen: sender });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let router = Router::new().fallback(answer).with_state(script);
        // Pictures may be large.
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Stand { url, seen }
    }

    pub(crate) async fn next(&mut self) -> Seen {
        self.seen.recv().await.expect("a request")
    }

    pub(crate) fn assert_quiet(&mut self) {
        assert!(self.seen.try_recv().is_err(), "no further request was expected");
    }
}

async fn answer(
    State(script): State<Arc<Script>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<String> {
    // A redirected call has lost its body.
    let body: Value = match body.as_ref() {
        [] => Value::Null,
        body => serde_json::from_slice(body).expect("a JSON request"),
    };
    let real = real_answer(uri.path(), &body);
    script
        .seen
        .send(Seen { path: uri.path().to_owned(), headers, body })
        .expect("the test still looks");
    let reply = script.replies.lock().pop_front().unwrap_or(Reply::Real);
    let (status, headers, body) = match reply {
        Reply::Real => (200, vec![("content-type", "application/json")], real.to_string()),
        Reply::Raw(status, headers, body) => (status, headers, body),
        Reply::Silence => std::future::pending().await,
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("status");
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("header value"));
    }
    response
}

/// What is to be embedded: texts as they are, pictures as what is given for them.
fn inputs(body: &Value) -> Vec<&str> {
    let given = ["texts", "images", "input", "inputs", "messages"];
    let given = given.into_iter().find_map(|name| body.get(name)?.as_array());
    let input = |input| -> Option<&str> {
        let input: &Value = input;
        let part = input.get("content").map_or(input, |content| &content[0]);
        let places = ["", "/text", "/image", "/image_url/url", "/image_url", "/image_base64"];
        places.into_iter().find_map(|place| part.pointer(place)?.as_str())
    };
    given.into_iter().flatten().filter_map(input).collect()
}

/// The answers as the providers document them.
pub(crate) fn real_answer(path: &str, body: &Value) -> Value {
    if path.ends_with("rerank") {
        return ranked(path, body);
    }
    let texts = inputs(body);
    let asked = body.get("output_dimension").or_else(|| body.get("dimensions"));
    let full = match body.get("model").and_then(Value::as_str) {
        Some("embed-v4.0" | "text-embedding-3-small") => 1_536,
        Some("nomic-embed-text" | "clip") => 768,
        _ => 1_024,
    };
    let dimension = asked.and_then(Value::as_u64).unwrap_or(full);
    let dimension = u32::try_from(dimension).expect("a dimension");
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector_of(text, dimension)).collect();
    // Pictures are counted, not their tokens, by models of the third generation.
    let pictures = body.get("images").and_then(Value::as_array).map(Vec::len);
    let billed = match pictures {
        None => json!({"input_tokens": 3 * texts.len()}),
        Some(count) if full == 1_024 => json!({ "images": count }),
        Some(count) => json!({"input_tokens": 0.0, "image_tokens": 1_610 * count}),
    };
    match path {
        "/v1/embed" => json!({
            "id": "5c1e", "texts": texts, "embeddings": vectors,
            "meta": {"api_version": {"version": "1"}, "billed_units": billed},
            "response_type": "embeddings_floats",
        }),
        "/v2/embed" => json!({
            "id": "5c1e", "texts": texts, "embeddings": {"float": vectors},
            "meta": {"api_version": {"version": "2"}, "billed_units": billed},
            "response_type": "embeddings_by_type",
        }),
        _ => {
            // Backwards: the index is what counts.
            let data: Vec<Value> = vectors
                .iter()
                .enumerate()
                .rev()
                .map(|(index, vector)| {
                    json!({"object": "embedding", "index": index, "embedding": vector})
                })
                .collect();
            let tokens = 2 * texts.len();
            json!({
                "object": "list", "data": data, "model": body.get("model"),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            })
        }
    }
}

/// Scores by the length of a text, the longest first, as those who rank list them.
fn ranked(path: &str, body: &Value) -> Value {
    let texts = body.get("documents").or_else(|| body.get("texts")).and_then(Value::as_array);
    let lengths = texts.expect("texts").iter().map(|text| text.as_str().map_or(0, str::len));
    let mut lengths: Vec<(usize, usize)> = lengths.enumerate().collect();
    lengths.sort_by_key(|&(index, length)| (std::cmp::Reverse(length), index));
    let tei = path == "/rerank";
    let named = |&(index, length): &(usize, usize)| {
        let score = f64::from(u32::try_from(length).expect("a short text")) / 100.0;
        if tei {
            json!({"index": index, "score": score})
        } else {
            json!({"index": index, "relevance_score": score})
        }
    };
    let results: Vec<Value> = lengths.iter().map(named).collect();
    let usage = json!({"total_tokens": 10 * results.len()});
    match path {
        "/rerank" => json!(results),
        "/v2/rerank" => {
            let meta =
                json!({"api_version": {"version": "2"}, "billed_units": {"search_units": 1}});
            json!({"id": "07734bd2", "results": results, "meta": meta})
        }
        _ if body.get("top_k").is_some() => {
            json!({"object": "list", "data": results, "model": body["model"], "usage": usage})
        }
        _ => json!({"model": body["model"], "results": results, "usage": usage}),
    }
}

pub(crate) fn cohere(url: &str, api_version: CohereVersion) -> EmbedConfig {
    let config = CohereConfig {
        api_key: Secret::new(KEY),
        base_url: url.to_owned(),
        api_version,
        pictures: false,
    };
    EmbedConfig { cohere: Some(config), ..EmbedConfig::default() }
}

pub(crate) fn openai(url: &str, model: &str, dimensions: Option<u32>) -> EmbedConfig {
    EmbedConfig {
        provider: Some(arrwdb_embed::ProviderKind::OpenAi),
        openai: Some(OpenAiConfig {
            base_url: format!("{url}/v1"),
            api_key: Some(Secret::new(KEY)),
            model: model.to_owned(),
            dimensions,
            pictures: None,
        }),
        ..EmbedConfig::default()
    }
}

pub(crate) fn parts(local: LocalSource, timer: Arc<dyn Timer>) -> EmbedParts {
    let options = HttpOptions { proxy: ProxyUse::Never, ..HttpOptions::default() };
    let http = http_client(&options).expect("client");
    EmbedParts { local, http, timer, random: Arc::new(|| u64::MAX / 2) }
}

/// An embedder without a local model, and its clock.
pub(crate) async fn remote(config: EmbedConfig) -> (Embedder, Arc<ManualTimer>) {
    let clock = Clock::default();
    let timer = Arc::clone(&clock.0);
    let local = LocalSource::Unavailable("not in this test".to_owned());
    let embedder = Embedder::open(config, parts(local, Arc::new(clock))).await.expect("open");
    (embedder, timer)
}

/// An embedder whose local model is `provider`, on Tokio's clock.
pub(crate) async fn custom(config: EmbedConfig, provider: Arc<dyn Provider>) -> Embedder {
    let parts = parts(LocalSource::Custom(provider), Arc::new(TokioTimer::new()));
    Embedder::open(config, parts).await.expect("open")
}

pub(crate) fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// A call that a [`Told`] provider received and has not answered.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) input: InputType,
    pub(crate) texts: Vec<String>,
    dimension: u32,
    reply: oneshot::Sender<Result<ProviderAnswer, CallError>>,
}

impl Call {
    /// Answers with the texts' usual vectors.
    pub(crate) fn finish(self) {
        let vectors = self.texts.iter().map(|text| vector_of(text, self.dimension)).collect();
        self.reply_with(Ok(ProviderAnswer { vectors, tokens: Some(7) }));
    }

    pub(crate) fn reply_with(self, answer: Result<ProviderAnswer, CallError>) {
        drop(self.reply.send(answer));
    }
}

/// A provider that answers when a test says so.
#[derive(Debug)]
pub(crate) struct Told {
    calls: mpsc::UnboundedSender<Call>,
    texts_per_call: usize,
    variant: &'static str,
}

impl Told {
    pub(crate) fn new(texts_per_call: usize) -> (Arc<Told>, mpsc::UnboundedReceiver<Call>) {
        Told::of_variant(texts_per_call, "")
    }

    pub(crate) fn of_variant(
        texts_per_call: usize,
        variant: &'static str,
    ) -> (Arc<Told>, mpsc::UnboundedReceiver<Call>) {
        let (calls, receiver) = mpsc::unbounded_channel();
        (Arc::new(Told { calls, texts_per_call, variant }), receiver)
    }
}

impl Provider for Told {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits {
            texts_per_call: self.texts_per_call,
            tokens_per_call: 1_000,
            tokens_per_text: 500,
            chars_per_text: Some(4_000),
            bytes_per_token: 4,
        }
    }

    fn variant(&self) -> String {
        self.variant.to_owned()
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        let (reply, answer) = oneshot::channel();
        let call = Call { input, texts: texts.to_vec(), dimension: model.dimension, reply };
        self.calls.send(call).expect("the test still looks");
        Box::pin(async move { answer.await.expect("the test answers") })
    }
}
