//! The embedder: texts or pictures in, checked vectors out, whoever computes them.
//!
//! - E1: what comes back is `texts * dimension` finite values, no row all zeros.
//! - E2: admission, concurrency, retries and waiting are bounded (`lane`).
//! - E3: the cache is asked first, by everything the vector depends on (`cache`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::{Cache, CacheKey};
use crate::config::{EmbedConfig, EmbedLimits};
use crate::error::{EmbedError, OpenError};
use crate::lane::{Lane, LaneParts, Request};
use crate::local::LocalModel;
use crate::meter::{Meter, Metered, Usage};
use crate::model_files::ModelFiles;
use crate::models::{DIMENSION_MAX, ModelRequest, ModelSpec, ProviderKind};
use crate::picture::Picture;
use crate::provider::{InputType, PictureLimits, Provider};
use crate::resolve::Resolver;
use crate::slots::{
    Slot, cohere_pictures_slot, cohere_slot, local_slot, openai_pictures_slot, openai_slot,
};
use crate::stats::{Counters, EmbedStats};
use crate::timer::{Random, Timer};

/// The most texts of one caller that are queued at a time; the rest of a larger request follows.
const REQUEST_TEXTS_MAX: usize = 1_024;

/// Bytes of texts that are hashed without a detour: half a millisecond.
const HASHED_AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// Where the local model comes from.
#[derive(Clone, Debug)]
pub enum LocalSource {
    /// A model that is loaded.
    Ready(Arc<LocalModel>),
    /// Files to load it from, as [`EmbedConfig`] says. Where that fails, there is no local model,
    /// and [`Embedder::status`] tells why.
    Files(ModelFiles),
    /// There is none, for the reason given; it may come later by [`Embedder::replace_local`].
    Unavailable(String),
    /// Another provider in its place: tests, simulations, embedding the crate.
    Custom(Arc<dyn Provider>),
}

/// What an embedder is given from outside.
pub struct EmbedParts {
    /// The model inside this process.
    pub local: LocalSource,
    /// Carries the calls to remote providers; see [`http_client`](crate::http::http_client).
    pub http: reqwest::Client,
    /// The clock that deadlines, windows and retries go by.
    pub timer: Arc<dyn Timer>,
    /// Jitter.
    pub random: Random,
}

impl fmt::Debug for EmbedParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EmbedParts")
            .field("local", &self.local)
            .field("timer", &self.timer)
            .finish_non_exhaustive()
    }
}

/// Whether the default provider can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedStatus {
    /// The default provider.
    pub provider: ProviderKind,
    /// Its model.
    pub model: String,
    /// The dimension of its vectors.
    pub dimension: u32,
    /// Whether it is set up. A provider that merely failed lately is still ready.
    pub ready: bool,
    /// What is missing, or what its last call showed to be wrong.
    pub note: Option<String>,
}

/// Turns texts and pictures into vectors. Cloning shares it.
///
/// Its calls must be made inside a Tokio runtime.
#[derive(Clone)]
pub struct Embedder(Arc<Inner>);

struct Inner {
    resolver: Resolver,
    default: ModelSpec,
    /// What the operator should know about how the default came to be.
    default_note: Option<String>,
    config: EmbedConfig,
    local: Mutex<Slot>,
    cohere: Slot,
    openai: Slot,
    cohere_pictures: Slot,
    openai_pictures: Slot,
    shared: LaneParts,
    closed: AtomicBool,
}

impl fmt::Debug for Embedder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Embedder").field("default", &self.0.default).finish_non_exhaustive()
    }
}

impl Embedder {
    /// Sets the providers up and opens the cache. Calls no provider: one that cannot be reached
    /// shows when it is used. A damaged cache is emptied, never an error.
    pub async fn open(config: EmbedConfig, parts: EmbedParts) -> Result<Embedder, OpenError> {
        check_limits(&config.limits)?;
        let resolver = Resolver::new(&config);
        let (default, default_note) = resolver.default(&config)?;
        if let Some(note) = &default_note {
            tracing::warn!("{note}");
        }
        let EmbedParts { local, http, timer, random } = parts;
        let cache = Cache::open(&config.cache);
        let shared = LaneParts { timer, random, cache, counters: Arc::new(Counters::default()) };
        let cohere = cohere_slot(&config, &http, &shared)?;
        let openai = openai_slot(&config, &http, &shared)?;
        let cohere_pictures = cohere_pictures_slot(&config, &http, &shared)?;
        let openai_pictures = openai_pictures_slot(&config, &http, &shared)?;
        let embedder = Embedder(Arc::new(Inner {
            resolver,
            default,
            default_note,
            config,
            local: Mutex::new(Err("the local model is not loaded yet".to_owned())),
            cohere,
            openai,
            cohere_pictures,
            openai_pictures,
            shared,
            closed: AtomicBool::new(false),
        }));
        embedder.replace_local(local).await?;
        Ok(embedder)
    }

    /// What a library gets that asks for nothing.
    pub fn default_model(&self) -> ModelSpec {
        self.0.default.clone()
    }

    /// What a library that asks for `request` gets, to be fixed at its creation.
    ///
    /// A model named without a provider is looked for at the default provider first, then at the
    /// others. Cohere and the local model refuse names they do not know; an OpenAI-compatible
    /// server takes any name, if its dimension is given. Whether the provider is ready is not
    /// asked.
    pub fn resolve(&self, request: ModelRequest) -> Result<ModelSpec, EmbedError> {
        self.0.resolver.resolve(&self.0.default, request)
    }

    /// Embeds `texts`: their vectors in order, row-major, `texts * model.dimension` values.
    /// No texts give no values.
    ///
    /// Waits at most `deadline`. Equal texts are embedded once. Refuses before anything is
    /// embedded: blank texts, texts too long for the provider, and all texts when too many are
    /// waiting already. Dropping the future withdraws what has not been called yet.
    pub async fn embed(
        &self,
        model: &ModelSpec,
        input: InputType,
        texts: Vec<String>,
        deadline: Duration,
    ) -> Result<Vec<f32>, EmbedError> {
        self.embed_metered((model, input, texts), deadline, None).await
    }

    /// This embedder, its calls told to `meter`.
    pub fn metered(&self, meter: Arc<dyn Meter>) -> Metered<'_> {
        Metered { embedder: self, meter }
    }

    /// Embeds `pictures` as [`Embedder::embed`] does texts, with a model of a provider that is set up
    /// to take them. Its vectors of texts and of pictures are in one space.
    pub async fn embed_pictures(
        &self,
        model: &ModelSpec,
        input: InputType,
        pictures: Vec<Picture>,
        deadline: Duration,
    ) -> Result<Vec<f32>, EmbedError> {
        self.embed_pictures_metered((model, input, pictures), deadline, None).await
    }

    /// Whether [`Embedder::embed_pictures`] takes this picture: an error says what is missing or what
    /// does not fit. Asks nobody.
    pub fn check_picture(&self, model: &ModelSpec, picture: &Picture) -> Result<(), EmbedError> {
        let (_lane, takes) = self.0.pictures_lane(model)?;
        check_picture(model, takes, picture)
    }

    /// The providers that are set up to take pictures.
    pub fn picture_providers(&self) -> Vec<ProviderKind> {
        let takes = |kind: &ProviderKind| self.0.pictures_slot(*kind).is_ok();
        ProviderKind::ALL.into_iter().filter(takes).collect()
    }

    pub(crate) async fn embed_metered(
        &self,
        (model, input, texts): (&ModelSpec, InputType, Vec<String>),
        deadline: Duration,
        meter: Option<&Arc<dyn Meter>>,
    ) -> Result<Vec<f32>, EmbedError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(EmbedError::Closed);
        }
        let lane = self.0.lane(model)?;
        check_texts(model, &lane, &texts)?;
        self.embed_by(&lane, (model, input, texts), deadline, meter).await
    }

    pub(crate) async fn embed_pictures_metered(
        &self,
        (model, input, pictures): (&ModelSpec, InputType, Vec<Picture>),
        deadline: Duration,
        meter: Option<&Arc<dyn Meter>>,
    ) -> Result<Vec<f32>, EmbedError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(EmbedError::Closed);
        }
        let (lane, takes) = self.0.pictures_lane(model)?;
        pictures.iter().try_for_each(|picture| check_picture(model, takes, picture))?;
        let urls = pictures.into_iter().map(Picture::into_url).collect();
        self.embed_by(&lane, (model, input, urls), deadline, meter).await
    }

    async fn embed_by(
        &self,
        lane: &Lane,
        work: (&ModelSpec, InputType, Vec<String>),
        deadline: Duration,
        meter: Option<&Arc<dyn Meter>>,
    ) -> Result<Vec<f32>, EmbedError> {
        if work.2.is_empty() {
            return Ok(Vec::new());
        }
        let until = self.0.shared.timer.now().saturating_add(deadline);
        // Looking into the cache counts as well: its files may lie on a disk that hangs.
        let work = async {
            let (mut answer, missing, saved) = self.0.look_up(lane, work, meter).await?;
            if !missing.texts.is_empty() {
                let _admission = lane.admit(missing.texts.len().min(REQUEST_TEXTS_MAX))?;
                self.0.embed_missing(lane, &mut answer, missing, until).await?;
            }
            // Only now: what is refused or fails is tried again, and would be saved each time.
            if let (Some(meter), true) = (meter, saved.cached_texts > 0) {
                meter.used(saved);
            }
            Ok(answer.vectors)
        };
        tokio::select! {
            biased;
            done = work => done,
            () = self.0.shared.timer.sleep(deadline) => Err(EmbedError::Deadline { deadline }),
        }
    }

    /// Puts another local model in place of the present one: how a model that was still being
    /// downloaded when the embedder was opened comes into use. Calls that run on the present one
    /// end as they would have, and those queued behind them with them.
    pub async fn replace_local(&self, source: LocalSource) -> Result<(), OpenError> {
        let slot = local_slot(source, &self.0.config, &self.0.shared).await?;
        self.0.local.lock().clone_from(&slot);
        // Whoever closes looks for the model only once.
        if self.0.closed.load(Ordering::SeqCst)
            && let Ok(lane) = slot
        {
            lane.close().await;
        }
        Ok(())
    }

    /// Whether the default provider can be used now.
    pub fn status(&self) -> EmbedStatus {
        let ModelSpec { provider, model, dimension } = self.0.default.clone();
        let (ready, note) = match self.0.slot(provider) {
            Ok(lane) => (true, lane.trouble()),
            Err(reason) => (false, Some(reason)),
        };
        let note = note.or_else(|| self.0.default_note.clone());
        EmbedStatus { provider, model, dimension, ready, note }
    }

    /// What was done since the embedder was opened.
    pub fn stats(&self) -> EmbedStats {
        let queued: usize = self.0.lanes().map(|lane| lane.admitted()).sum();
        EmbedStats {
            models: self.0.shared.counters.snapshot(),
            cache_memory_bytes: self.0.shared.cache.memory_bytes(),
            cache_disk_bytes: self.0.shared.cache.disk_bytes(),
            queue_texts: u64::try_from(queued).unwrap_or(u64::MAX),
        }
    }

    /// Forgets every cached vector, in memory and in files; how many bytes they took. Errors where
    /// the files cannot be emptied: then they are as they were.
    pub async fn clear_cache(&self) -> std::io::Result<u64> {
        self.0.shared.cache.clear().await
    }

    /// Answers everyone who waits with [`EmbedError::Closed`], abandons running calls and writes
    /// the cache's last entries. Further calls fail; closing again does nothing.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let lanes: Vec<Lane> = self.0.lanes().collect();
        for lane in lanes {
            lane.close().await;
        }
        self.0.shared.cache.close().await;
    }
}

/// The answer being put together.
struct Rows {
    vectors: Vec<f32>,
    width: usize,
}

impl Rows {
    fn set(&mut self, row: usize, vector: &[f32]) {
        let at = row * self.width;
        if let Some(place) = self.vectors.get_mut(at..at + self.width) {
            place.copy_from_slice(vector);
        }
    }
}

/// The distinct texts that the cache did not have.
struct Missing {
    model: Arc<ModelSpec>,
    input: InputType,
    texts: Vec<String>,
    keys: Vec<CacheKey>,
    /// Rows of the answer that each of them fills, at least one, ascending.
    rows: Vec<Vec<usize>>,
    /// Told what they use.
    meter: Option<Arc<dyn Meter>>,
}

impl Inner {
    fn slot(&self, kind: ProviderKind) -> Slot {
        match kind {
            ProviderKind::Local => self.local.lock().clone(),
            ProviderKind::Cohere => self.cohere.clone(),
            ProviderKind::OpenAi => self.openai.clone(),
        }
    }

    fn pictures_slot(&self, kind: ProviderKind) -> Slot {
        match kind {
            ProviderKind::Local => Err("its model takes texts only".to_owned()),
            ProviderKind::Cohere => self.cohere_pictures.clone(),
            ProviderKind::OpenAi => self.openai_pictures.clone(),
        }
    }

    /// Every lane there is.
    fn lanes(&self) -> impl Iterator<Item = Lane> {
        let slots = |kind| [self.slot(kind), self.pictures_slot(kind)];
        ProviderKind::ALL.into_iter().flat_map(slots).flatten()
    }

    fn lane(&self, model: &ModelSpec) -> Result<Lane, EmbedError> {
        check_dimension(model)?;
        self.slot(model.provider)
            .map_err(|reason| EmbedError::NotConfigured { provider: model.provider, reason })
    }

    /// The lane of pictures, and which it takes.
    fn pictures_lane(&self, model: &ModelSpec) -> Result<(Lane, PictureLimits), EmbedError> {
        check_dimension(model)?;
        let none = |reason| EmbedError::NoPictures { provider: model.provider, reason };
        let lane = self.pictures_slot(model.provider).map_err(none)?;
        let takes = lane.pictures().ok_or_else(|| none("its model takes texts only".to_owned()))?;
        Ok((lane, takes))
    }

    /// Fills in what the cache has, and gathers the rest, equal texts once; and what the cache saves.
    async fn look_up(
        &self,
        lane: &Lane,
        (model, input, texts): (&ModelSpec, InputType, Vec<String>),
        meter: Option<&Arc<dyn Meter>>,
    ) -> Result<(Rows, Missing, Usage), EmbedError> {
        let (texts, keys) = keys(lane, model, input, texts).await?;
        let found = self.shared.cache.get(&keys, model.dimension).await;
        let width = usize::try_from(model.dimension).unwrap_or(usize::MAX);
        let mut rows = Rows { vectors: vec![0.0; texts.len() * width], width };
        let mut missing = Missing {
            model: Arc::new(model.clone()),
            input,
            texts: Vec::new(),
            keys: Vec::new(),
            rows: Vec::new(),
            meter: meter.cloned(),
        };
        let (mut hits, mut saved) = (0, 0);
        let mut seen: HashMap<CacheKey, usize> = HashMap::new();
        for (row, ((text, key), found)) in texts.into_iter().zip(keys).zip(found).enumerate() {
            if let Some(vector) = found {
                rows.set(row, &vector);
                hits += 1;
                saved += lane.tokens_estimated(&text);
            } else if let Some(rows) = seen.get(&key).and_then(|&at| missing.rows.get_mut(at)) {
                rows.push(row);
            } else {
                seen.insert(key, missing.texts.len());
                missing.texts.push(text);
                missing.keys.push(key);
                missing.rows.push(vec![row]);
            }
        }
        self.shared.counters.count(model, |stats| {
            stats.cache_hits += hits;
            stats.cache_misses += u64::try_from(missing.texts.len()).unwrap_or(u64::MAX);
        });
        let saved = Usage { cached_texts: hits, cached_tokens: saved, ..Usage::default() };
        Ok((rows, missing, saved))
    }

    /// Embeds what is missing, a bounded number of texts at a time.
    async fn embed_missing(
        &self,
        lane: &Lane,
        answer: &mut Rows,
        missing: Missing,
        until: Duration,
    ) -> Result<(), EmbedError> {
        let Missing { model, input, texts, keys, rows, meter } = missing;
        let (mut texts, mut keys) = (texts.into_iter(), keys.into_iter());
        for rows in rows.chunks(REQUEST_TEXTS_MAX) {
            if meter.as_ref().is_some_and(|meter| !meter.may_call()) {
                return Err(EmbedError::NotAllowed);
            }
            let request = Request {
                model: Arc::clone(&model),
                input,
                texts: texts.by_ref().take(rows.len()).collect(),
                keys: keys.by_ref().take(rows.len()).collect(),
                deadline: until,
                meter: meter.clone(),
            };
            let vectors = lane.submit(request).vectors().await;
            let vectors = vectors.map_err(|error| at_row(error, rows))?;
            for (rows, vector) in rows.iter().zip(vectors.chunks_exact(answer.width)) {
                for &row in rows {
                    answer.set(row, vector);
                }
            }
        }
        Ok(())
    }
}

/// The texts' cache keys. Hashing a large request takes its time, and so has a thread for that.
async fn keys(
    lane: &Lane,
    model: &ModelSpec,
    input: InputType,
    texts: Vec<String>,
) -> Result<(Vec<String>, Vec<CacheKey>), EmbedError> {
    let (model, lane) = (model.clone(), lane.clone());
    let bytes: usize = texts.iter().map(String::len).sum();
    let hash = move || {
        let key = |text: &String| lane.key(&model, input, text);
        let keys = texts.iter().map(key).collect();
        (texts, keys)
    };
    if bytes <= HASHED_AT_ONCE_BYTES_MAX {
        return Ok(hash());
    }
    // Only a runtime that ends runs no more work.
    tokio::task::spawn_blocking(hash).await.map_err(|_ended| EmbedError::Closed)
}

/// An index in an error of a lane, as the caller counts.
fn at_row(error: EmbedError, rows: &[Vec<usize>]) -> EmbedError {
    if let EmbedError::NotFinite { index } = error {
        let row = rows.get(index).and_then(|rows| rows.first()).copied();
        return EmbedError::NotFinite { index: row.unwrap_or(index) };
    }
    error
}

fn check_dimension(model: &ModelSpec) -> Result<(), EmbedError> {
    if (1..=DIMENSION_MAX).contains(&model.dimension) {
        return Ok(());
    }
    Err(EmbedError::DimensionUnsupported {
        model: model.model.clone(),
        dimension: model.dimension,
        supported: format!("1 to {DIMENSION_MAX}"),
    })
}

/// Refuses a picture that the provider would not take.
fn check_picture(
    model: &ModelSpec,
    takes: PictureLimits,
    picture: &Picture,
) -> Result<(), EmbedError> {
    let unfit = |detail| Err(EmbedError::PictureUnfit { provider: model.provider, detail });
    let most = takes.bytes_per_picture;
    match picture.bytes() {
        Some(bytes) if bytes > most => {
            unfit(format!("it has {bytes} bytes, and the limit is {most}"))
        }
        Some(_) => Ok(()),
        None if takes.fetches => Ok(()),
        None => unfit("it fetches none, so give the picture itself as a data: URL".to_owned()),
    }
}

fn check_texts(model: &ModelSpec, lane: &Lane, texts: &[String]) -> Result<(), EmbedError> {
    let chars_max = lane.takes().chars_per_text.unwrap_or(usize::MAX);
    for (index, text) in texts.iter().enumerate() {
        if text.trim().is_empty() {
            return Err(EmbedError::BlankText { index });
        }
        // A text has at most as many characters as bytes, and bytes cost nothing to count.
        if text.len() > chars_max {
            let chars = text.chars().count();
            if chars > chars_max {
                let provider = model.provider;
                return Err(EmbedError::TextTooLong { index, chars, chars_max, provider });
            }
        }
    }
    Ok(())
}

fn check_limits(limits: &EmbedLimits) -> Result<(), OpenError> {
    let least = [
        ("calls_concurrent_max", limits.calls_concurrent_max, 1),
        ("queue_texts_max", limits.queue_texts_max, REQUEST_TEXTS_MAX),
        (
            "local_piece_tokens_max",
            usize::try_from(limits.local_piece_tokens_max).unwrap_or(usize::MAX),
            1,
        ),
    ];
    match least.into_iter().find(|&(_, value, min)| value < min) {
        Some((name, value, min)) => Err(OpenError::Limit { name, value, min }),
        None => Ok(()),
    }
}
