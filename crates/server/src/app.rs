//! What every handler can reach, and the routes put together with their layers.
//!
//! ```text
//! envelope (id, time, headers, problem bodies, log, metrics)
//!   -> CORS -> compression -> host check -> rate limit -> panics -> admission -> timeout -> route
//! ```
//! Health and metrics answer however busy the rest is: they pass neither admission nor timeout.
//! Streams pass an admission of their own and no timeout. Those who follow the change feed hold no
//! slot of either, since they are many and idle; but while one is sent a snapshot it is a stream.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrwdb_engine::Engine;
use arrwdb_feed::{Feed, Jobs, JobsConfig, Matcher, MatcherStats, Mirror, Webhooks};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use parking_lot::Mutex;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::JoinHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::admission::Admission;
use crate::config::{Config, CorsConfig};
use crate::jobs::{JobFiles, Performer};
use crate::limits::{BODIES_BYTES_MAX, PATH_CHARS_SHOWN, WEBHOOK_CALLS_MAX};
use crate::metrics::Metrics;
use crate::problem::{self, Problem};
use crate::rate_limit::RateLimiter;
use crate::routes::{SocketBounds, Sockets};
use crate::spool::SpoolDir;
use crate::{admission, envelope, openapi, rate_limit, routes};

/// What every handler can reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    engine: Engine,
    feed: Feed,
    webhooks: Webhooks,
    /// Until the server stops.
    matcher: Mutex<Option<Matcher>>,
    /// Who carries documents to other embedding models, until the server stops.
    mirror: Mutex<Option<Mirror>>,
    /// A permit for each client that may follow the feed.
    followers: Arc<Semaphore>,
    /// Slots of those who are sent a library as it is read.
    streams: Admission,
    sockets: Arc<Sockets>,
    config: Config,
    metrics: Arc<Metrics>,
    /// Once they are begun, unless they are turned off.
    jobs: OnceLock<Jobs>,
    job_files: JobFiles,
    rates: Option<RateLimiter>,
    spools: SpoolDir,
    /// KiB of bodies that may still come into memory.
    bodies: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    /// Held by work that goes on when its request is over.
    outliving: Arc<RwLock<()>>,
    started: Instant,
}

/// How the matcher of standing queries is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matching {
    pub(crate) stats: MatcherStats,
    pub(crate) running: bool,
}

impl App {
    /// Puts the parts together.
    pub fn new(
        engine: Engine,
        (feed, matcher, webhooks): (Feed, Matcher, Webhooks),
        config: Config,
        metrics: Metrics,
    ) -> Self {
        let storage = &config.storage;
        let job_files = JobFiles::new(&storage.data_dir, config.jobs.export_retention);
        let matcher = Mutex::new(Some(matcher));
        let mirror = Mutex::new(Some(Mirror::start(engine.clone())));
        let followers = config.events.streams_max.min(Semaphore::MAX_PERMITS);
        let followers = Arc::new(Semaphore::new(followers));
        let sockets = Arc::new(Sockets::new(SocketBounds::of(&config)));
        let streams = Admission::new(config.load.requests_max);
        let rates = config.rates.map(RateLimiter::new);
        let spools = SpoolDir::new(config.storage.data_dir.clone());
        let bodies_kib = BODIES_BYTES_MAX.max(config.limits.body_bytes_max).div_ceil(1024);
        // A body of the largest size takes one more, since pieces of it are rounded up.
        let bodies = Arc::new(Semaphore::new(bodies_kib + 1));
        let (stopping, started) = (watch::Sender::new(false), Instant::now());
        Self(Arc::new(Parts {
            engine,
            feed,
            webhooks,
            matcher,
            mirror,
            followers,
            streams,
            sockets,
            config,
            metrics: Arc::new(metrics),
            jobs: OnceLock::new(),
            job_files,
            rates,
            spools,
            bodies,
            stopping,
            outliving: Arc::default(),
            started,
        }))
    }

    /// Says that the server is about to stop: bodies without an end are ended here.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Resolves when the server is about to stop.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.0.stopping.subscribe();
        // A sender that is gone has stopped as well.
        async move { stopping.wait_for(|stopping| *stopping).await.map_or_else(drop, drop) }
    }

    /// Does work that goes on when its request is over, and that a server which stops waits for.
    pub(crate) fn outliving<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        // Not to be had only where the server stopped waiting.
        let held = Arc::clone(&self.0.outliving).try_read_owned();
        tokio::spawn(async move {
            let _held = held;
            work.await
        })
    }

    /// Waits until no such work is left.
    pub(crate) async fn outlived(&self) {
        drop(self.0.outliving.write().await);
    }

    /// Where answers wait that are made faster than they are read.
    pub(crate) fn spools(&self) -> &SpoolDir {
        &self.0.spools
    }

    /// The memory of bodies.
    pub(crate) fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The change feed.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Who sends events to webhooks.
    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    /// What the matcher of standing queries has done, and whether it runs.
    pub(crate) fn matching(&self) -> Matching {
        let matcher = self.0.matcher.lock();
        let Some(matcher) = matcher.as_ref() else {
            return Matching { stats: MatcherStats::default(), running: false };
        };
        // While it runs, nobody is told at once that it has come to where nothing ever is.
        let running = matcher.is_running();
        Matching { stats: matcher.stats(), running }
    }

    /// The matcher, for its end; `None` if it was taken before.
    pub(crate) fn take_matcher(&self) -> Option<Matcher> {
        self.0.matcher.lock().take()
    }

    /// Who carries documents to other embedding models, for its end; `None` if it was taken before.
    pub(crate) fn take_mirror(&self) -> Option<Mirror> {
        self.0.mirror.lock().take()
    }

    /// The number of clients that may still follow the feed.
    pub(crate) fn followers(&self) -> &Arc<Semaphore> {
        &self.0.followers
    }

    /// Slots of those who are sent a library as it is read, whatever the route.
    pub(crate) fn streams(&self) -> &Admission {
        &self.0.streams
    }

    /// Every open WebSocket.
    pub(crate) fn sockets(&self) -> &Arc<Sockets> {
        &self.0.sockets
    }

    /// Who works on jobs; `None` where that is turned off.
    pub(crate) fn jobs(&self) -> Option<&Jobs> {
        self.0.jobs.get()
    }

    /// Begins to work on jobs.
    pub(crate) async fn start_jobs(&self) {
        let (config, metrics) = (self.config(), self.0.metrics.clone());
        let performer =
            Performer::new(self.0.engine.clone(), self.0.job_files.clone(), config, metrics);
        let settings = JobsConfig { workers: config.jobs.workers, ..JobsConfig::default() };
        let jobs = Jobs::start(self.0.engine.clone(), Arc::new(performer), settings).await;
        // They are begun once.
        drop(self.0.jobs.set(jobs));
    }

    /// The files of jobs.
    pub(crate) fn job_files(&self) -> &JobFiles {
        &self.0.job_files
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn rates(&self) -> Option<&RateLimiter> {
        self.0.rates.as_ref()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// Every route with every layer.
pub fn router(app: &App) -> Router {
    let config = app.config();
    let requests_max = config.load.requests_max;
    let timeout = config.load.request_timeout;
    // The path of the seeds is outside `/v1`, and the original's own client puts that before it.
    let plain = api(config, routes::plain).merge(routes::webhook_aliases());
    let plain = plain.layer(from_fn_with_state(timeout, admission::in_time));
    let plain = plain.layer(from_fn_with_state(Admission::new(requests_max), admission::admit));
    let streams = api(config, routes::streams)
        .layer(from_fn_with_state(app.streams().clone(), admission::admit_stream));
    // Receivers that do not answer hold up nobody's imports and exports.
    let calls = api(config, routes::webhook_calls)
        .merge(routes::webhook_call_aliases())
        .layer(from_fn_with_state(Admission::new(WEBHOOK_CALLS_MAX), admission::admit));
    let follow = api(config, routes::follow);
    let mut router = routes::open(config).merge(plain).merge(streams).merge(calls).merge(follow);
    if config.surface.docs.is_on() {
        router = router.merge(openapi::pages());
    }
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), rate_limit::limit))
        .layer(from_fn_with_state(app.clone(), envelope::check_host))
        .layer(compression());
    let router = match &config.cors {
        Some(cors) => router.layer(cors_layer(cors)),
        None => router,
    };
    router.layer(from_fn_with_state(app.clone(), envelope::wrap)).with_state(app.clone())
}

/// The routes below `/v1`, and without it where the settings ask for that.
fn api(config: &Config, routes: fn() -> Router<App>) -> Router<App> {
    let versioned = Router::new().nest("/v1", routes());
    if config.surface.unversioned_paths.is_on() { versioned.merge(routes()) } else { versioned }
}

async fn not_found(uri: http::Uri) -> Problem {
    let path = uri.path();
    let mut detail = format!("there is nothing at {}", shown(path));
    let without = path.trim_end_matches('/');
    if without.len() < path.len() && openapi::has_path(without) {
        detail += "; ";
        detail += shown(without);
        detail += " without the slash at its end exists";
    }
    Problem::new(&problem::NOT_FOUND, detail)
}

/// A path as far as it fits into one line.
fn shown(path: &str) -> &str {
    // URIs are ASCII here, so any place is between two characters.
    path.get(..PATH_CHARS_SHOWN).unwrap_or(path)
}

async fn method_not_allowed(method: Method, uri: http::Uri) -> Problem {
    let detail = format!("{} is not possible at {}", method, shown(uri.path()));
    Problem::new(&problem::METHOD_NOT_ALLOWED, detail)
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands the panic over")]
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Problem::hidden(&problem::INTERNAL, format!("a handler panicked: {text}")).into_response()
}

/// gzip for whole answers. Streams are left alone: the compressor would hold lines back. So is what can be
/// asked for in parts, as its tag and its ranges are of the bytes as they are.
fn compression() -> CompressionLayer<impl Predicate> {
    let is_never_ranged =
        |_status: StatusCode, _version: Version, headers: &HeaderMap, _: &Extensions| {
            !headers.contains_key(header::ACCEPT_RANGES)
        };
    let predicate = SizeAbove::new(1024)
        .and(is_never_ranged)
        .and(NotForContentType::new("application/x-ndjson"))
        .and(NotForContentType::new("application/octet-stream"))
        .and(NotForContentType::new("text/event-stream"))
        .and(NotForContentType::IMAGES);
    CompressionLayer::new().compress_when(predicate)
}

fn cors_layer(cors: &CorsConfig) -> CorsLayer {
    let any = |list: &[String]| list.iter().any(|item| item == "*");
    let names = |list: &[String]| -> Vec<HeaderName> {
        list.iter().filter_map(|name| name.parse().ok()).collect()
    };
    let origins = cors.origins.iter().filter_map(|o| HeaderValue::from_str(o).ok());
    let origin = match (any(&cors.origins), cors.credentials.is_on()) {
        (true, false) => AllowOrigin::any(),
        // Browsers refuse `*` with credentials; the origin is named instead.
        (true, true) => AllowOrigin::mirror_request(),
        (false, _) => AllowOrigin::list(origins),
    };
    let headers = if any(&cors.headers) {
        AllowHeaders::mirror_request()
    } else {
        AllowHeaders::list(names(&cors.headers))
    };
    let mut expose = names(&cors.expose);
    expose.extend([envelope::SEQ_HEADER, envelope::TIME_HEADER, header::RETRY_AFTER]);
    // Of what can be asked for in parts.
    expose.extend([header::ETAG, header::ACCEPT_RANGES, header::CONTENT_RANGE]);
    CorsLayer::new()
        .allow_origin(origin)
        .allow_credentials(cors.credentials.is_on())
        .allow_methods(cors.methods.iter().filter_map(|m| m.parse().ok()).collect::<Vec<Method>>())
        .allow_headers(headers)
        .expose_headers(expose)
        .max_age(cors.max_age)
}
