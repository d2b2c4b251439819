//! A stand-in for Cohere, for OpenAI and for servers like it: speaks their wire formats and answers with vectors that
//! follow from the texts, so that a text is found by itself and by texts that share its words. The bytes of a picture
//! are the words of what it shows; of one that has to be fetched its URL has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Numbers in a vector, as Cohere's model has them.
pub(crate) const DIMENSION: usize = 1024;

/// The stand-in; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Provider {
    port: u16,
    task: JoinHandle<()>,
    state: Arc<Behaviour>,
}

/// What is wrong with the stand-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// Every call is answered with this status.
    Status(u16),
    /// Every answer is something else than vectors.
    Malformed,
    /// Every vector has one number.
    Short,
}

#[derive(Debug, Default)]
struct Behaviour {
    trouble: watch::Sender<Trouble>,
    texts: AtomicUsize,
    /// Pictures embedded so far.
    pictures: AtomicUsize,
    /// How many of the next calls for pictures are refused for their rate.
    limited: AtomicUsize,
    /// Passages ranked so far.
    ranked: AtomicUsize,
    /// Calls answered with a status that it was told.
    refused: AtomicUsize,
    /// What a text is billed; nothing stands for one token a call.
    tokens_per_text: AtomicUsize,
    holding: watch::Sender<bool>,
    stuck: watch::Sender<bool>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Provider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Behaviour::default());
        let app = axum::Router::new()
            .route("/v1/embed", post(embed))
            .route("/v2/embed", post(cohere_pictures))
            .route("/v1/multimodalembeddings", post(voyage))
            .route("/v1/embeddings", post(openai))
            .route("/v2/rerank", post(rerank))
            .route("/rerank", post(tei));
        let app = app.with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serve") });
        Provider { port, task, state }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes every call fail with a 400, which no client repeats, or lets it work again.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.set_trouble(if failing { Trouble::Status(400) } else { Trouble::None });
    }

    /// Makes every call fail like this.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.state.trouble.send_replace(trouble);
    }

    /// Makes every call wait, or lets those that wait go on.
    pub(crate) fn set_holding(&self, holding: bool) {
        self.state.holding.send_replace(holding);
    }

    /// Makes every call wait that has a text with the word "stuck" in it, or lets those go on.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.state.stuck.send_replace(stuck);
    }

    /// Calls that wait because of that word.
    pub(crate) fn stuck_calls(&self) -> usize {
        self.state.stuck.receiver_count()
    }

    /// Bills so many tokens for every text from now on.
    pub(crate) fn set_tokens_per_text(&self, tokens: usize) {
        self.state.tokens_per_text.store(tokens, Ordering::SeqCst);
    }

    /// Calls so far that were answered with a status that it was told.
    pub(crate) fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Passages ranked so far.
    pub(crate) fn ranked(&self) -> usize {
        self.state.ranked.load(Ordering::SeqCst)
    }

    /// Refuses the next calls for pictures for their rate, and says to come back in a second.
    pub(crate) fn set_limited(&self, calls: usize) {
        self.state.limited.store(calls, Ordering::SeqCst);
    }

    /// Pictures embedded so far.
    pub(crate) fn pictures(&self) -> usize {
        self.state.pictures.load(Ordering::SeqCst)
    }

    /// Texts embedded so far.
    pub(crate) fn texts(&self) -> usize {
        self.state.texts.load(Ordering::SeqCst)
    }
}

async fn embed(State(state): State<Arc<Behaviour>>, Json(request): Json<Value>) -> Response {
    let trouble = *state.trouble.borrow();
    match trouble {
        Trouble::None | Trouble::Short => {}
        Trouble::Status(status) => {
            state.refused.fetch_add(1, Ordering::SeqCst);
            let body = Json(json!({ "message": "told to fail" }));
            return (StatusCode::from_u16(status).expect("a status"), body).into_response();
        }
        Trouble::Malformed => return "<html>told to fail</html>".into_response(),
    }
    let texts = request["texts"].as_array().expect("texts");
    if texts.iter().any(|text| text.as_str().expect("text").contains("blocked")) {
        // Cohere's own status for a text that it will not look at.
        let body = Json(json!({ "message": "blocked" }));
        return (StatusCode::from_u16(498).expect("a status"), body).into_response();
    }
    // A text that says which status it gets.
    let told = texts.iter().find_map(|text| text.as_str()?.split_once("answer with ")?.1.get(..3));
    if let Some(status) = told.and_then(|status| status.parse().ok()) {
        state.refused.fetch_add(1, Ordering::SeqCst);
        let said = "This model's maximum context length is 8192 tokens";
        let body = Json(json!({ "message": said }));
        return (StatusCode::from_u16(status).expect("a status"), body).into_response();
    }
    let is_stuck = texts.iter().any(|text| text.as_str().expect("text").contains("stuck"));
    for waiting in [Some(&state.holding), is_stuck.then_some(&state.stuck)].into_iter().flatten() {
        let mut waiting = waiting.subscribe();
        waiting.wait_for(|waiting| !*waiting).await.expect("the sender is in the state");
    }
    if trouble == Trouble::Short {
        let short: Vec<[f32; 1]> = texts.iter().map(|_text| [1.0]).collect();
        return Json(json!({ "embeddings": short })).into_response();
    }
    state.texts.fetch_add(texts.len(), Ordering::SeqCst);
    let vectors: Vec<Vec<f32>> =
        texts.iter().map(|text| vector(text.as_str().expect("text"))).collect();
    let tokens = (state.tokens_per_text.load(Ordering::SeqCst) * texts.len()).max(1);
    Json(json!({ "embeddings": vectors, "meta": { "billed_units": { "input_tokens": tokens } } }))
        .into_response()
}

/// The part of the query's words that each passage has.
fn relevance(query: &Value, passages: &Value) -> Vec<f64> {
    let words = query.as_str().expect("a query").split(' ');
    let words: Vec<&str> = words.collect();
    let passages = passages.as_array().expect("passages").iter();
    let share = |passage: &Value| {
        let passage = passage.as_str().expect("a passage");
        let found = words.iter().filter(|word| passage.contains(*word)).count();
        f64::from(u32::try_from(found).expect("few"))
            / f64::from(u32::try_from(words.len()).expect("few"))
    };
    passages.map(share).collect()
}

/// As Cohere answers: a search unit for every hundred passages.
async fn rerank(State(state): State<Arc<Behaviour>>, Json(request): Json<Value>) -> Response {
    let trouble = *state.trouble.borrow();
    match trouble {
        Trouble::None => {}
        Trouble::Status(status) => {
            state.refused.fetch_add(1, Ordering::SeqCst);
            let body = Json(json!({ "message": "told to fail" }));
            return (StatusCode::from_u16(status).expect("a status"), body).into_response();
        }
        Trouble::Malformed => return "<html>told to fail</html>".into_response(),
        Trouble::Short => return Json(json!({ "results": [] })).into_response(),
    }
    let mut waiting = state.holding.subscribe();
    waiting.wait_for(|waiting| !*waiting).await.expect("the sender is in the state");
    let scores = relevance(&request["query"], &request["documents"]);
    state.ranked.fetch_add(scores.len(), Ordering::SeqCst);
    let units = scores.len().div_ceil(100);
    let of = |(index, score): (usize, &f64)| json!({"index": index, "relevance_score": score});
    let results: Vec<Value> = scores.iter().enumerate().rev().map(of).collect();
    let meta = json!({"billed_units": {"search_units": units}});
    Json(json!({"id": "1", "results": results, "meta": meta})).into_response()
}

/// As Text Embeddings Inference answers.
async fn tei(State(state): State<Arc<Behaviour>>, Json(request): Json<Value>) -> Response {
    let scores = relevance(&request["query"], &request["texts"]);
    assert!(scores.len() <= 32, "it takes no more in one call");
    state.ranked.fetch_add(scores.len(), Ordering::SeqCst);
    let of = |(index, score): (usize, &f64)| json!({"index": index, "score": score});
    Json(scores.iter().enumerate().map(of).collect::<Vec<Value>>()).into_response()
}

/// An input of a call: a text, or what a picture shows.
enum Input {
    Text(String),
    Picture(String),
}

impl Input {
    /// What a picture shows that is given by a URL or by plain base64.
    fn picture(given: &str) -> Input {
        let shown =
            |data: &str| STANDARD.decode(data).ok().and_then(|it| String::from_utf8(it).ok());
        let data = given.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
        Input::Picture(match data {
            Some((_media_type, data)) => shown(data).expect("base64 of words"),
            None if given.starts_with("http") => given.to_owned(),
            None => shown(given).expect("base64 of words"),
        })
    }

    /// An element of Jina's `input`, of a chat's or of Voyage's `content`.
    fn of(part: &Value) -> Input {
        let places = ["", "/text"].map(|place| part.pointer(place).and_then(Value::as_str));
        if let Some(text) = places.into_iter().flatten().next() {
            return Input::Text(text.to_owned());
        }
        let places = ["/image", "/image_url/url", "/image_url", "/image_base64"];
        let url = places.into_iter().find_map(|place| part.pointer(place)?.as_str());
        Input::picture(url.expect("a text or a picture"))
    }
}

impl Behaviour {
    /// The refusal that a call for pictures gets, if it gets one.
    fn refusal(&self) -> Option<Response> {
        let fewer = |left: usize| left.checked_sub(1);
        if self.limited.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            let body = Json(json!({ "message": "too many requests" }));
            let headers = [(header::RETRY_AFTER, "1")];
            return Some((StatusCode::TOO_MANY_REQUESTS, headers, body).into_response());
        }
        let trouble = *self.trouble.borrow();
        match trouble {
            Trouble::None | Trouble::Short => None,
            Trouble::Malformed => Some("<html>told to fail</html>".into_response()),
            Trouble::Status(status) => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                let body = Json(json!({ "message": "told to fail" }));
                Some((StatusCode::from_u16(status).expect("a status"), body).into_response())
            }
        }
    }

    /// The vectors of inputs.
    fn vectors(&self, inputs: &[Input]) -> Vec<Vec<f32>> {
        let short = *self.trouble.borrow() == Trouble::Short;
        let of = |input: &Input| {
            let (count, words) = match input {
                Input::Text(text) => (&self.texts, text),
                Input::Picture(shown) => (&self.pictures, shown),
            };
            count.fetch_add(1, Ordering::SeqCst);
            if short { vec![1.0] } else { vector(words) }
        };
        inputs.iter().map(of).collect()
    }

    /// As OpenAI's servers answer: a text is billed as many tokens as it has bytes, a picture a hundred.
    fn answer(&self, model: &Value, inputs: &[Input]) -> Response {
        let tokens = |input: &Input| match input {
            Input::Text(text) => text.len(),
            Input::Picture(_) => 100,
        };
        let tokens: usize = inputs.iter().map(tokens).sum();
        let of = |(index, vector): (usize, Vec<f32>)| json!({"index": index, "embedding": vector});
        let data: Vec<Value> = self.vectors(inputs).into_iter().enumerate().map(of).collect();
        let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
        Json(json!({"object": "list", "data": data, "model": model, "usage": usage}))
            .into_response()
    }
}

/// As OpenAI's servers answer, Jina's for elements that are objects, and vLLM's for messages.
async fn openai(State(state): State<Arc<Behaviour>>, Json(request): Json<Value>) -> Response {
    if let Some(refusal) = state.refusal() {
        return refusal;
    }
    let inputs = match request["messages"].as_array() {
        Some(messages) => {
            assert_eq!((messages.len(), messages[0]["role"].as_str()), (1, Some("user")));
            messages[0]["content"].as_array().expect("parts")
        }
        None => request["input"].as_array().expect("inputs"),
    };
    let inputs: Vec<Input> = inputs.iter().map(Input::of).collect();
    state.answer(&request["model"], &inputs)
}

/// As Voyage answers for models of texts and pictures.
async fn voyage(State(state): State<Arc<Behaviour>>, Json(request): Json<Value>) -> Response {
    if let Some(refusal) = state.refusal() {
        return refusal;
    }
    assert!(["document", "query"].contains(&request["input_type"].as_str().expect("a type")));
    let inputs = request["inputs"].as_array().expect("inputs");
    let inputs: Vec<Input> = inputs.iter().map(|input| Input::of(&input["content"][0])).collect();
    state.answer(&request["model"], &inputs)
}

/// As Cohere answers for a picture, of which it takes one in a call, in a `data:` URL.
async fn cohere_pictures(
    State(state): State<Arc<Behaviour>>,
    Json(request): Json<Value>,
) -> Response {
    if let Some(refusal) = state.refusal() {
        return refusal;
    }
    let images = request["images"].as_array().expect("pictures");
    let url = images[0].as_str().expect("a URL");
    if images.len() > 1 || request["input_type"] != "image" || !url.starts_with("data:image/") {
        let body = Json(json!({ "message": "invalid request: one data URI per call" }));
        return (StatusCode::BAD_REQUEST, body).into_response();
    }
    let vectors = state.vectors(&[Input::picture(url)]);
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"images": 1}});
    Json(json!({"id": "1", "embeddings": {"float": vectors}, "texts": [], "meta": meta}))
        .into_response()
}

/// A bag of words: each word adds one to a place of its own, nearly always.
pub(crate) fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.to_lowercase().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        vector[usize::try_from(hash % 1021).expect("small")] += 1.0;
    }
    // No text is without direction.
    vector[DIMENSION - 1] += 0.01;
    // And none of its beginnings, for libraries of fewer dimensions.
    vector[0] += 0.01;
    vector
}
