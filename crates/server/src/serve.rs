//! A server from its settings to its end.

use std::collections::HashSet;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arrwdb_engine::embed::Embedder;
use arrwdb_engine::state::{JobId, JobState, Seq};
use arrwdb_engine::{Engine, EngineConfig, EngineError, EngineParts, FollowError};
use arrwdb_feed::{
    Feed, FeedConfig, FeedError, Matcher, Reach, Webhooks, WebhooksConfig, WebhooksError,
};

use crate::app::{App, router};
use crate::config::Config;
use crate::connections;
use crate::jobs::Known;
use crate::limits::{EXPORTS_LOOK, SOCKETS_CLOSED_WAIT};
use crate::machine;
use crate::metrics::Metrics;
use crate::model::{self, ModelError};

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The data directory cannot be opened.
    #[error("cannot open {}: {source}{}", dir.display(), what_to_do(source, dir))]
    Open {
        /// The data directory.
        dir: PathBuf,
        /// Why not.
        source: EngineError,
    },
    /// The embedder cannot be set up.
    #[error("cannot set up embedding: {0}")]
    Model(#[from] ModelError),
    /// Metrics cannot be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The log cannot be followed.
    #[error("cannot follow the log: {0}")]
    Feed(FeedError),
    /// What standing queries are there cannot be read.
    #[error("cannot match standing queries: {0}")]
    Matcher(FollowError),
    /// Webhooks cannot be served.
    #[error("cannot deliver to webhooks: {0}")]
    Webhooks(#[from] WebhooksError),
    /// What jobs work on cannot be looked through.
    #[error("cannot open the files of jobs: {0}")]
    Jobs(std::io::Error),
    /// Signals cannot be heard.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// Accepted writes are safe in the log, but the data directory was not closed in order.
    #[error("the data directory was not closed in order: {0}")]
    Close(EngineError),
}

/// Binds the address of the settings.
pub fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    let address = format!("{}:{}", config.host, config.port);
    let fail = |source| ServeError::Listen { address: address.clone(), source };
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = (host, config.port).to_socket_addrs().map_err(fail)?.collect();
    let listener = TcpListener::bind(addresses.as_slice()).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let listener = listen(&config)?;
    let stop = signals().map_err(ServeError::Signals)?;
    serve_on(config, listener, stop).await
}

/// Serves on a bound socket until `stop`; then lets open requests finish, writes a checkpoint and
/// closes the data directory.
pub async fn serve_on(
    config: Config,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    serve_with(config, listener, stop, EngineParts::system).await
}

/// As [`serve_on`], with clock, randomness and disk as `parts` makes them.
pub async fn serve_with(
    config: Config,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
    parts: impl FnOnce(Embedder) -> EngineParts,
) -> Result<(), ServeError> {
    let bad_socket =
        |source| ServeError::Listen { address: format!("{}:{}", config.host, config.port), source };
    let listener = tokio::net::TcpListener::from_std(listener).map_err(bad_socket)?;
    let address = listener.local_addr().map_err(bad_socket)?;
    let metrics = Metrics::new()?;
    let local = model::open(&config).await?;
    let embedder = local.embedder.clone();
    let parts = EngineParts { reranker: local.reranker.clone(), ..parts(embedder.clone()) };
    let engine = open_engine(&config, parts).await?;
    let matcher = match Matcher::start(engine.clone()).await {
        Ok(matcher) => matcher,
        Err(error) => return Err(ServeError::Matcher(error)),
    };
    let fetching = local.fetch_in_background();
    let load = config.load.clone();
    let feed = open_feed(&config, engine.clone()).await?;
    let webhooks = open_webhooks(&config, &feed, engine.clone()).await?;
    let followers = (feed.clone(), matcher, webhooks);
    let app = App::new(engine.clone(), followers, config, metrics);
    let expiring = open_jobs(&app).await?;
    announce(&app, address);
    let stopped = OnceLock::new();
    let in_time = connections::serve(listener, router(&app), &load, async {
        stop.await;
        stopped.get_or_init(Instant::now);
        app.stop();
        tracing::info!("stopping: open requests get {} s", load.shutdown_timeout.as_secs());
    })
    .await;
    if !in_time {
        tracing::warn!("requests that were still open are cut off");
    }
    // They stop at the same time as everything else; then they take their leave.
    let since = stopped.get().map_or(Duration::ZERO, Instant::elapsed);
    let longest = load.shutdown_timeout.saturating_sub(since) + SOCKETS_CLOSED_WAIT;
    outlived(&app, longest).await;
    if let Some(fetching) = fetching {
        fetching.abort();
    }
    expiring.abort();
    if let Some(jobs) = app.jobs() {
        // What is not done by then is found undone in the log.
        let closed = tokio::time::timeout(load.shutdown_timeout, jobs.close()).await;
        if closed.is_err() {
            tracing::warn!(
                "jobs that were still worked on are cut off; they go on at the next start"
            );
        }
    }
    close_followers(&app).await;
    feed.close().await;
    let closed = engine.close().await;
    embedder.close().await;
    closed.map_err(ServeError::Close)?;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for what outlives the connections, at most so long.
async fn outlived(app: &App, longest: Duration) {
    let (sockets_closed, writes_over) =
        tokio::join!(app.sockets().closed(longest), tokio::time::timeout(longest, app.outlived()));
    if !sockets_closed {
        tracing::warn!("WebSockets that were still open are cut off");
    }
    if writes_over.is_err() {
        tracing::warn!("writes that were still under way are cut off");
    }
}

/// Ends what follows the log, but for the feed.
async fn close_followers(app: &App) {
    app.webhooks().close().await;
    if let Some(matcher) = app.take_matcher() {
        matcher.close().await;
    }
    if let Some(mirror) = app.take_mirror() {
        mirror.close().await;
    }
}

/// The way on from a directory that cannot be opened, where there is one.
fn what_to_do(error: &EngineError, dir: &Path) -> String {
    if !matches!(error, EngineError::Damaged { .. }) || error.to_string().contains("arrwdb check") {
        return String::new();
    }
    format!(
        "\n`arrwdb check {}` lists everything that is damaged, and what can be done about it",
        dir.display()
    )
}

async fn open_engine(config: &Config, parts: EngineParts) -> Result<Engine, ServeError> {
    let storage = &config.storage;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = EngineConfig {
        data_dir: storage.data_dir.clone(),
        search_threads: storage.search_threads.unwrap_or(cpus),
        search_queue_max: storage.search_queue_max,
        chunk_chars: config.limits.chunk_chars,
        chunks_per_document_max: config.limits.chunks_per_document_max,
        chunk_chars_max: config.limits.chunk_chars_max,
        query_chars_max: config.limits.query_chars_max,
        min_seq_wait_max: storage.min_seq_wait_max,
        embed_deadline: config.embedding.timeout,
        history: storage.history,
        checkpoint_bytes: storage.checkpoint_bytes,
        index_rows_min: EngineConfig::INDEX_ROWS_MIN,
        build_threads: cpus,
        library_idle: storage.library_idle,
        memory_budget_bytes: storage.memory_budget_bytes.unwrap_or(machine::memory_bytes() / 2),
        scrub_bytes_per_second: storage.scrub_bytes_per_second,
        feed_retention: storage.feed_retention,
        feed_retention_bytes: storage.feed_retention_bytes,
        job_retention: config.jobs.retention,
        prices: config.embedding.prices.clone(),
        cost_days_kept: config.embedding.cost_days_kept,
        log_file_bytes: EngineConfig::LOG_FILE_BYTES,
        disk_free_bytes_min: storage.disk_free_bytes_min,
        documents_per_library_max: storage.documents_per_library_max,
        standing_queries_per_library_max: storage.standing_queries_per_library_max,
    };
    let dir = storage.data_dir.clone();
    Engine::open(settings, parts).await.map_err(|source| ServeError::Open { dir, source })
}

async fn open_feed(config: &Config, engine: Engine) -> Result<Feed, ServeError> {
    let sizes = FeedConfig { bytes_max: config.events.buffer_bytes, ..FeedConfig::default() };
    Feed::start(engine, sizes).await.map_err(ServeError::Feed)
}

async fn open_webhooks(
    config: &Config,
    feed: &Feed,
    engine: Engine,
) -> Result<Webhooks, ServeError> {
    let (dir, settings) = (&config.storage.data_dir, &config.webhooks);
    let everywhere = settings.allow_private.is_on();
    let settings = WebhooksConfig {
        key: settings.key_file.clone().unwrap_or_else(|| dir.join("keys").join("webhooks.key")),
        store: dir.join("work").join("deliveries.redb"),
        reach: if everywhere { Reach::Everywhere } else { Reach::Public },
    };
    Ok(Webhooks::start(feed.clone(), engine, settings).await?)
}

/// Begins to work on jobs, and to remove what exports wrote once it has expired.
async fn open_jobs(app: &App) -> Result<tokio::task::JoinHandle<()>, ServeError> {
    let (files, engine) = (app.job_files().clone(), app.engine().clone());
    let opened = tokio::task::spawn_blocking(move || {
        let wanted = engine.unfinished_jobs(Seq::START);
        let wanted = wanted.iter().map(|job| job.spec.head.id).collect::<HashSet<_>>();
        files.open(|id| wanted.contains(&id))
    });
    opened.await.map_err(std::io::Error::other).flatten().map_err(ServeError::Jobs)?;
    if app.config().jobs.enabled.is_on() {
        app.start_jobs().await;
    }
    let (files, engine) = (app.job_files().clone(), app.engine().clone());
    Ok(tokio::spawn(async move {
        let mut look = tokio::time::interval(EXPORTS_LOOK);
        loop {
            look.tick().await;
            let (files, engine) = (files.clone(), engine.clone());
            let expire = move || {
                files.expire()?;
                files.forget_errors(|id| known(&engine, id))
            };
            let expired = tokio::task::spawn_blocking(expire).await;
            if let Err(error) = expired.map_err(std::io::Error::other).flatten() {
                tracing::warn!(%error, "files of jobs that have expired cannot be removed");
            }
        }
    }))
}

/// What is known of a job that a file is named after.
fn known(engine: &Engine, id: JobId) -> Known {
    match engine.job_of_any(id).map(|job| matches!(job.state, JobState::Finished { .. })) {
        None => Known::Not,
        Some(true) => Known::Over,
        Some(false) => Known::Unfinished,
    }
}

/// Says where the server is and what it holds: in words for people, in one log line for machines.
fn announce(app: &App, address: SocketAddr) {
    let health = app.engine().health();
    let config = app.config();
    let data_dir = config.storage.data_dir.display();
    let model = format!(
        "{} ({}, {} dimensions)",
        health.embedding.model, health.embedding.provider, health.embedding.dimension
    );
    if !is_loopback(address.ip()) {
        tracing::warn!(
            "ANYONE WHO CAN REACH {address} CAN READ AND DELETE EVERYTHING: there is no \
             authentication. Listen on 127.0.0.1, or let only a proxy that authenticates reach it."
        );
    }
    if let Some(note) = &health.embedding.note {
        tracing::warn!("embedding: {note}");
    }
    if config.log.json.is_on() {
        tracing::info!(
            %address, %data_dir, model, libraries = health.libraries,
            documents = health.documents, chunks = health.chunks, "listening"
        );
        return;
    }
    let url = format!("http://{}", reachable(address));
    let has_docs = config.surface.docs.is_on();
    let docs = if has_docs { format!("\n  docs    {url}/docs") } else { String::new() };
    let text = format!(
        "arrwDB {version}\n  url     {url}{docs}\n  data    {data_dir}: {libraries} libraries, \
         {documents} documents, {chunks} chunks\n  model   {model}\n",
        version = env!("CARGO_PKG_VERSION"),
        libraries = health.libraries,
        documents = health.documents,
        chunks = health.chunks,
    );
    // Standard error may be closed; that is no reason not to serve.
    std::io::stderr().write_all(text.as_bytes()).ok();
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

/// An address that a browser on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => ([127, 0, 0, 1], address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Resolves at the first SIGTERM or SIGINT; from then on a second one ends the process.
fn signals() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::error!("stopped at once by a second signal");
            end_now();
        });
    })
}

#[expect(clippy::exit, reason = "a second signal asks for exactly this")]
fn end_now() -> ! {
    std::process::exit(130)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_everything_is_shown_as_one_that_works() {
        for (bound, shown) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), shown);
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (ip, loopback) in
            [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("0.0.0.0", false)]
        {
            assert_eq!(is_loopback(ip.parse().unwrap()), loopback, "{ip}");
        }
    }
}
