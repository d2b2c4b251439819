//! WebSockets: `GET /v1/libraries/{id}/ws`. `docs/websocket.md` shows every message.
//!
//! ```text
//! routes/socket.rs    the upgrade: whose page asks, which library, is there room
//!   session.rs        one socket in one task: requests, events, live queries, pings, goodbye
//!     requests.rs       what each request begins, and what its answer means
//!   frame.rs          messages, read and written
//!   perform.rs        what actions ask of the engine
//!   live.rs           live top-k: searches and their differences
//!   outlet.rs         the socket and what waits to be sent
//!   arriving.rs       messages of which a part has come
//!   registry.rs       all sockets, and those that share a session
//! ```

mod arriving;
mod frame;
mod live;
mod outlet;
mod perform;
mod registry;
mod session;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use arrwdb_engine::state::LibraryId;
use arrwdb_feed::{EventTypes, Filter, Position};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::outlet::Outlet;
use self::perform::Place;
use self::session::{Opening, Session};
use crate::app::App;
use crate::connections::ConnectionSlot;
use crate::extract::{LibraryPath, QueryPairs, query_fault};
use crate::limits::{SOCKET_BUFFER_BYTES, SOCKET_NAME_CHARS_MAX};
use crate::openapi::{ReadErrors, SocketErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};
use crate::progress::Received;

pub use self::frame::message_problem;
pub(crate) use self::registry::{SocketBounds, Sockets};

pub(super) fn follow_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(connect))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// A request for a WebSocket, as far as it can be read.
struct Wish {
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    library: Result<LibraryId, Problem>,
    query: Query,
    headers: HeaderMap,
    peer: Option<SocketAddr>,
    slot: Option<ConnectionSlot>,
    received: Option<Received>,
}

/// What the query string says.
struct Query {
    welcome: bool,
    types: EventTypes,
    after: Option<Position>,
    session: Option<String>,
}

impl FromRequestParts<App> for Wish {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let library = LibraryPath::from_request_parts(parts, app).await;
        let pairs = QueryPairs::from_request_parts(parts, app).await?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let slot = Extension::<ConnectionSlot>::from_request_parts(parts, app).await.ok();
        Ok(Self {
            upgrade: WebSocketUpgrade::from_request_parts(parts, app).await,
            library: library.map(|LibraryPath(library)| library),
            query: Query::read(&pairs)?,
            headers: parts.headers.clone(),
            peer,
            slot: slot.map(|Extension(slot)| slot),
            received: parts.extensions.get::<Received>().cloned(),
        })
    }
}

impl Query {
    fn read(pairs: &QueryPairs) -> Result<Self, Problem> {
        let types = EventTypes::parse(pairs.text("event_types").unwrap_or_default())
            .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.to_string()))?;
        let after = pairs.text("after").map(str::parse::<Position>).transpose();
        let after = after.map_err(|error| query_fault("after", &error.to_string()))?;
        let session = pairs.text("session_id").map(str::to_owned);
        if session.as_ref().is_some_and(|it| it.chars().count() > SOCKET_NAME_CHARS_MAX) {
            let detail = format!("must have at most {SOCKET_NAME_CHARS_MAX} characters");
            return Err(query_fault("session_id", &detail));
        }
        Ok(Self { welcome: pairs.switch("welcome")?.unwrap_or(false), types, after, session })
    }
}

/// A WebSocket to a library: search, write, follow its events, and live queries, many at a time.
/// `docs/websocket.md` in the repository shows every message. An unknown library is a close with
/// code 1008, too many connections one with 1013.
#[utoipa::path(get, operation_id = "websocket", path = "/libraries/{library_id}/ws", tag = "websocket",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("welcome" = Option<bool>, Query, description = "Whether a frame that names the connection comes first [false]"),
        ("event_types" = Option<String>, Query, description = "Events that are pushed: types, families (`document.*`) or `*`, separated by commas [all but those of chunks]"),
        ("after" = Option<String>, Query, description = "Events after this place: a sequence number, or an event's id [now]"),
        ("session_id" = Option<String>, Query, description = "A session to share in: what its other sockets find is pushed"),
    ),
    responses((status = 101, description = "The connection speaks WebSocket from here on"), SocketErrors))]
async fn connect(
    principal: Principal,
    State(app): State<App>,
    wish: Wish,
) -> Result<Response, Problem> {
    let config = &app.config().sockets;
    if !config.enabled.is_on() {
        let detail = "WebSockets are off; WEBSOCKET_ENABLED=true turns them on";
        return Err(Problem::new(&problem::NOT_FOUND, detail));
    }
    let Wish { upgrade, library, query, headers, peer, slot, received } = wish;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            app.engine().library(principal.tenant, library?, None).await?;
            return Ok(upgrade_required(&rejection.to_string()));
        }
    };
    check_origin(&app, &headers)?;
    let upgrade = upgrade
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(config.message_bytes_max)
        .max_frame_size(config.message_bytes_max)
        .on_failed_upgrade(|error| tracing::debug!("no WebSocket came of a request: {error}"));
    let client = peer.map(|peer| peer.ip());
    let opening = match library {
        Ok(library) => {
            let place = Place { app: app.clone(), principal, library };
            let opening = open(place, &query, slot).await;
            opening.map(|opening| Opening { client, received, ..opening })
        }
        Err(bad_id) => Err(Refused(close_code::POLICY, bad_id.detail().to_owned())),
    };
    Ok(upgrade.on_upgrade(async move |socket| match opening {
        Ok(opening) => {
            Box::pin(Session::new(socket, opening).run(query.welcome, query.session)).await;
        }
        Err(refused) => refuse(&app, socket, refused).await,
    }))
}

/// Why a socket is closed at once: code and reason.
struct Refused(u16, String);

/// What a socket needs, or why it cannot be.
async fn open(
    place: Place,
    query: &Query,
    slot: Option<ConnectionSlot>,
) -> Result<Opening, Refused> {
    let (app, tenant, library) = (&place.app, place.principal.tenant, place.library);
    let policy = |problem: Problem| Refused(close_code::POLICY, frame::error_text(&problem));
    app.engine().library(tenant, library, None).await.map_err(|error| policy(error.into()))?;
    if query.after.is_some_and(|after| after.seq() > app.engine().durable()) {
        let reason = "after is a place that this server has not come to".to_owned();
        return Err(Refused(close_code::POLICY, reason));
    }
    let sockets = app.sockets();
    let Some(permit) = sockets.slot() else {
        let max = app.config().sockets.connections_max;
        let reason = format!("{max} WebSockets are open, as many as may be; try again later");
        return Err(Refused(close_code::AGAIN, reason));
    };
    let filter = Filter { tenant, library: Some(library), types: query.types, members: Vec::new() };
    let subscription = app.feed().subscribe(filter, query.after);
    let subscription = subscription.map_err(|error| policy(error.into()))?;
    let registered = sockets.register(tenant, library, permit);
    Ok(Opening { registered, subscription, client: None, received: None, slot, place })
}

async fn refuse(app: &App, socket: WebSocket, Refused(code, reason): Refused) {
    let counters = &app.sockets().counters;
    counters.refused.fetch_add(1, Ordering::Relaxed);
    Outlet::new(socket, 1).close(code, &reason, counters).await;
}

fn upgrade_required(why: &str) -> Response {
    let detail = format!("{why}; connect with a WebSocket client");
    let mut response = Problem::new(&problem::UPGRADE_REQUIRED, detail).into_response();
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// Browsers let pages of any origin open a WebSocket, so the server has to look: the rule is that
/// of CORS, and a page that this server's own host sent may always.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let named = |name: &String| name == "*" || name.eq_ignore_ascii_case(origin);
    if app.config().cors.as_ref().is_some_and(|cors| cors.origins.iter().any(named)) {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_scheme, host)| host);
    if host.is_some() && host.map(str::to_ascii_lowercase) == of_origin.map(str::to_ascii_lowercase)
    {
        return Ok(());
    }
    let detail = "pages of this origin may not connect; CORS_ORIGINS says which may";
    Err(Problem::new(&problem::FORBIDDEN_ORIGIN, detail))
}

/// Open WebSockets, and those of each library that are pushed its events.
#[utoipa::path(get, operation_id = "websocket_stats", path = "/websockets/stats", tag = "websocket",
    responses((status = 200, description = "Figures", body = Object,
        example = json!({"total_connections": 2, "libraries_with_subscribers": 1, "subscriptions_by_library": {"0191f4a2-7c3e-7abc-8def-0123456789ab": 2}, "max_connections": 1000, "live_queries": 0})), ReadErrors))]
async fn stats(principal: Principal, State(app): State<App>) -> Json<Value> {
    let stats = app.sockets().stats(principal.tenant);
    let by_library: Map<String, Value> = (stats.subscriptions.iter())
        .map(|(library, count)| (library.to_string(), Value::from(*count)))
        .collect();
    Json(json!({
        "total_connections": stats.connections,
        "libraries_with_subscribers": by_library.len(),
        "subscriptions_by_library": by_library,
        "max_connections": app.config().sockets.connections_max,
        "live_queries": app.sockets().watches(),
    }))
}
