//! What a client asks of the feed: which events, and after which place.

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{LibraryId, ParseIdError, Seq};
use arrwdb_feed::{EventTypes, Filter, Position, Subscription};
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::extract::{QueryPairs, query_fault};
use crate::limits::{
    ADMISSION_RETRY_AFTER, EVENT_FILTER_MEMBERS_MAX, EVENT_FILTER_VALUE_BYTES_MAX,
};
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// Where an event source says what it has seen.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What is wanted.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) filter: Filter,
    /// After this place; from now on without one.
    pub(super) after: Option<Position>,
}

impl Ask {
    /// Reads the parameters that streams and pages share.
    pub(super) fn read(
        principal: Principal,
        query: &QueryPairs,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let library = query.text("library_id").map(str::parse::<LibraryId>).transpose();
        let library =
            library.map_err(|error: ParseIdError| query_fault("library_id", &error.to_string()))?;
        let types = EventTypes::parse(query.text("event_types").unwrap_or_default())
            .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.to_string()))?;
        let members = members(query)?;
        let after = match headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) {
            // Browsers repeat the URL when they come back, so what they have seen counts.
            Some(value) => {
                let text = value.to_str().unwrap_or("?").trim();
                let position = text.parse::<Position>().map_err(|error| {
                    Problem::field(format!("/header/{LAST_EVENT_ID}"), error.to_string())
                })?;
                Some(position)
            }
            None => after(query)?,
        };
        let filter = Filter { tenant: principal.tenant, library, types, members };
        Ok(Self { filter, after })
    }

    /// Follows the feed as asked for, once the log has come to where that is.
    pub(super) async fn subscribe(self, app: &App) -> Result<Subscription, Problem> {
        if let Some(wanted) = self.after.map(Position::seq) {
            reach(app, wanted).await?;
        }
        Ok(app.feed().subscribe(self.filter, self.after)?)
    }
}

/// Waits, for a bounded time, until the log has come to `wanted`: a client may know a number that
/// this server does not.
pub(super) async fn reach(app: &App, wanted: Seq) -> Result<(), Problem> {
    if app.engine().durable() >= wanted {
        return Ok(());
    }
    let before = Seq::new(wanted.get().saturating_sub(1));
    let longest = app.config().storage.min_seq_wait_max;
    let reached = tokio::time::timeout(longest, app.engine().advanced_past(before)).await;
    let current = app.engine().durable();
    if current >= wanted {
        return Ok(());
    }
    reached.unwrap_or(Ok(()))?;
    Err(EngineError::SeqNotReached { wanted, current }.into())
}

fn after(query: &QueryPairs) -> Result<Option<Position>, Problem> {
    let Some(text) = query.text("after") else { return Ok(None) };
    let position = text.parse::<Position>();
    position.map(Some).map_err(|error| query_fault("after", &error.to_string()))
}

/// `data.<member>=<value>`.
fn members(query: &QueryPairs) -> Result<Vec<(String, String)>, Problem> {
    let mut members = Vec::new();
    for (name, value) in query.pairs() {
        let Some(member) = name.strip_prefix("data.") else { continue };
        if member.is_empty() {
            return Err(query_fault(
                name,
                "must name a member of the payload, as data.document_id",
            ));
        }
        if value.len() > EVENT_FILTER_VALUE_BYTES_MAX {
            let detail = format!("must have at most {EVENT_FILTER_VALUE_BYTES_MAX} bytes");
            return Err(query_fault(name, &detail));
        }
        members.push((member.to_owned(), value.to_owned()));
    }
    if members.len() > EVENT_FILTER_MEMBERS_MAX {
        let detail = format!("at most {EVENT_FILTER_MEMBERS_MAX} members can be asked for");
        return Err(query_fault("data", &detail));
    }
    Ok(members)
}

/// A share of the number of clients that may follow the feed.
pub(super) fn permit(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    app.followers().clone().try_acquire_owned().map_err(|_full| {
        let detail = "as many clients follow the feed as may; EVENT_STREAMS_MAX and \
                      MAX_CONNECTIONS say how many";
        Problem::new(&problem::BUSY, detail).retry_after(ADMISSION_RETRY_AFTER)
    })
}
